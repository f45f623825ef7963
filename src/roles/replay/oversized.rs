//! What a topic did not take for its size: refused, then written cut, each time it comes again. Nothing vanishes, and nothing
//! stops for it.

use std::collections::HashMap;

use super::queue::item::NextOffsets;
use crate::error::{Error, Result};
use crate::kafka::record::NewRecord;
use crate::saga::position::{Offset, TopicPartition};
use crate::wire::dead_letter::{CUT_TO, DeadLetterRecord, cut};

/// The one thing that a batch was about of which a topic did not take a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OversizedSource {
    pub partition: TopicPartition,
    pub source: RecordSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordSource {
    /// By replay id.
    Request(String),
    /// From which no request can be read, or that is to be forwarded.
    Record(Offset),
}

/// How often each was not taken. Empty but for moments.
#[derive(Default)]
pub struct OversizedRecords {
    requests: HashMap<String, usize>,
    records: HashMap<(TopicPartition, Offset), usize>,
    /// Batches of one request each that are still to come: one of them holds what a topic did not take.
    one_by_one: usize,
}

/// Times that something is tried smaller: refused, cut, and cut again.
const MAX_TRIES: usize = 4;

impl OversizedRecords {
    /// Of a request: once, and it is to be refused; twice, and its refusal is to be cut.
    pub fn times(&self, replay_id: &str) -> usize {
        self.requests.get(replay_id).copied().unwrap_or(0)
    }

    pub fn times_at(&self, partition: &TopicPartition, offset: Offset) -> usize {
        if self.records.is_empty() { 0 } else { self.records.get(&(partition.clone(), offset)).copied().unwrap_or(0) }
    }

    /// A topic did not take a record of a batch: several requests come again one by one, one alone comes smaller. Gives the
    /// partition of one that not even its smallest record fits.
    pub fn not_taken(&mut self, source: Option<OversizedSource>, requests: usize) -> Option<TopicPartition> {
        let Some(culprit) = source else {
            self.one_by_one = requests;
            return None;
        };
        let OversizedSource { partition, source } = culprit.clone();
        let times = self.count(culprit);
        if times <= MAX_TRIES {
            tracing::warn!(%partition, ?source, times, "a record is larger than its topic takes, trying it smaller");
            return None;
        }
        // Only an operator can help, by the topic's max.message.bytes; the other partitions need not wait for that.
        tracing::error!(%partition, ?source, "not even the smallest record fits its topic: raise its max.message.bytes");
        Some(partition)
    }

    /// Once more. Gives how often so far.
    fn count(&mut self, OversizedSource { partition, source }: OversizedSource) -> usize {
        let times = match source {
            RecordSource::Request(replay_id) => self.requests.entry(replay_id).or_default(),
            RecordSource::Record(offset) => self.records.entry((partition, offset)).or_default(),
        };
        *times += 1;
        *times
    }

    /// What was committed has been taken.
    pub fn committed(&mut self, replay_ids: &[String], offsets: &NextOffsets) {
        self.one_by_one = self.one_by_one.saturating_sub(1);
        if !self.requests.is_empty() {
            self.requests.retain(|replay_id, _| !replay_ids.contains(replay_id));
        }
        self.records.retain(|(partition, offset), _| offsets.get(partition).is_none_or(|next| next <= offset));
    }

    /// Is the one looked for that a topic did not take?
    pub fn is_looked_for(&self) -> bool {
        self.one_by_one > 0
    }
}

/// A dead letter whole, or cut where its topic did not take it, more each of these times.
pub async fn cut_dead_letter(letter: NewRecord, times: usize) -> Result<NewRecord> {
    let Some(most) = times.checked_sub(1).map(|again| CUT_TO[again.min(CUT_TO.len() - 1)]) else { return Ok(letter) };
    // The hash of a large value takes its time.
    let cutting = tokio::task::spawn_blocking(move || {
        let NewRecord { key, value, headers, .. } = letter;
        let DeadLetterRecord { key, value, headers } = cut(&DeadLetterRecord { key, value, headers }, most);
        NewRecord { key, value, headers, ..letter }
    });
    cutting.await.map_err(|e| Error::bug(format!("cut dead letter: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_remembered_until_it_is_committed() {
        let mut oversized = OversizedRecords::default();
        let partition = TopicPartition::new("requests", 3);
        let culprit = |source| OversizedSource { partition: partition.clone(), source };
        let record = || culprit(RecordSource::Record(Offset(41)));
        assert_eq!([(); 2].map(|()| oversized.count(culprit(RecordSource::Request("r".into())))), [1, 2]);
        assert_eq!((oversized.count(record()), oversized.times_at(&partition, Offset(41))), (1, 1));
        oversized.committed(&[], &[(partition.clone(), Offset(41))].into());
        assert_eq!((oversized.times("r"), oversized.times_at(&partition, Offset(41))), (2, 1), "not yet");
        oversized.committed(&["r".into()], &[(partition.clone(), Offset(42))].into());
        assert_eq!((oversized.times("r"), oversized.times_at(&partition, Offset(41))), (0, 0));
    }
}
