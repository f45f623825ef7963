//! What a topic did not take for its size: refused, then written cut, each time it comes again. Nothing vanishes, and nothing
//! stops for it.

use std::collections::HashMap;

use super::Replay;
use super::batch::{Offsets, Prepared};
use crate::error::{Error, Result};
use crate::kafka::record::NewRecord;
use crate::saga::position::{Offset, TopicPartition};
use crate::wire::dead_letter::{CUT_TO, DeadLetterRecord, cut};

/// A batch of one, of which a topic did not take a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Culprit {
    partition: TopicPartition,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    /// By replay id.
    Request(String),
    /// From which no request can be read, or that is to be sent on.
    Record(Offset),
}

/// How often each was not taken. Empty but for moments.
#[derive(Default)]
pub(super) struct TooLarge {
    requests: HashMap<String, usize>,
    records: HashMap<(TopicPartition, Offset), usize>,
}

impl TooLarge {
    /// Of a request: once, and it is to be refused; twice, and its refusal is to be cut.
    pub fn times(&self, replay_id: &str) -> usize {
        self.requests.get(replay_id).copied().unwrap_or(0)
    }

    pub fn times_at(&self, partition: &TopicPartition, offset: Offset) -> usize {
        if self.records.is_empty() { 0 } else { self.records.get(&(partition.clone(), offset)).copied().unwrap_or(0) }
    }

    /// Once more. Gives how often so far.
    fn count(&mut self, Culprit { partition, which }: Culprit) -> usize {
        let times = match which {
            Which::Request(replay_id) => self.requests.entry(replay_id).or_default(),
            Which::Record(offset) => self.records.entry((partition, offset)).or_default(),
        };
        *times += 1;
        *times
    }

    /// What was committed has been taken.
    pub fn committed(&mut self, replay_ids: &[String], offsets: &Offsets) {
        if !self.requests.is_empty() {
            self.requests.retain(|replay_id, _| !replay_ids.contains(replay_id));
        }
        self.records.retain(|(partition, offset), _| offsets.get(partition).is_none_or(|next| next <= offset));
    }
}

/// Times that something is tried smaller: refused, cut, and cut again.
const MOST: usize = 4;

impl Prepared {
    /// The one thing in it that its transaction is about; `None`: there are several.
    pub(super) fn culprit(&self) -> Option<Culprit> {
        let (partition, next) = self.offsets.iter().next().filter(|_| self.requests() == 1)?;
        let which = match self.replay_ids.first() {
            Some(one) => Which::Request(one.clone()),
            None => Which::Record(Offset(next.0 - 1)),
        };
        Some(Culprit { partition: partition.clone(), which })
    }
}

impl Replay {
    /// A dead letter whole, or cut where its topic did not take it, more each time.
    pub(super) async fn as_small_as_it_must_be(
        &self,
        letter: NewRecord,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<NewRecord> {
        let times = self.too_large.times_at(partition, offset);
        let Some(most) = times.checked_sub(1).map(|again| CUT_TO[again.min(CUT_TO.len() - 1)]) else { return Ok(letter) };
        // The hash of a large value takes its time.
        let cutting = tokio::task::spawn_blocking(move || {
            let NewRecord { key, value, headers, .. } = letter;
            let DeadLetterRecord { key, value, headers } = cut(&DeadLetterRecord { key, value, headers }, most);
            NewRecord { key, value, headers, ..letter }
        });
        self.deps.metrics.dead_letters_cut.inc();
        cutting.await.map_err(|e| Error::bug(format!("cut dead letter: {e}")))
    }

    /// A topic did not take a record of a batch: several requests are carried out one by one, one alone comes smaller.
    pub(super) async fn was_too_large(&mut self, culprit: Option<Culprit>, requests: usize) -> Result<()> {
        let Some(culprit) = culprit else {
            self.alone = requests;
            return Ok(());
        };
        let Culprit { partition, which } = culprit.clone();
        match self.too_large.count(culprit) {
            times if times <= MOST => {
                tracing::warn!(%partition, ?which, times, "a record is larger than its topic takes, trying it smaller");
                Ok(())
            }
            // Only an operator can help, by the topic's max.message.bytes; the other partitions need not wait for that.
            _ => {
                tracing::error!(%partition, ?which, "not even the smallest record fits its topic: raise its max.message.bytes");
                self.give_back(vec![partition]).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_remembered_until_it_is_committed() {
        let mut too_large = TooLarge::default();
        let partition = TopicPartition::new("requests", 3);
        let culprit = |which| Culprit { partition: partition.clone(), which };
        let record = || culprit(Which::Record(Offset(41)));
        assert_eq!([(); 2].map(|()| too_large.count(culprit(Which::Request("r".into())))), [1, 2]);
        assert_eq!((too_large.count(record()), too_large.times_at(&partition, Offset(41))), (1, 1));
        too_large.committed(&[], &[(partition.clone(), Offset(41))].into());
        assert_eq!((too_large.times("r"), too_large.times_at(&partition, Offset(41))), (2, 1), "not yet");
        too_large.committed(&["r".into()], &[(partition.clone(), Offset(42))].into());
        assert_eq!((too_large.times("r"), too_large.times_at(&partition, Offset(41))), (0, 0));
    }
}
