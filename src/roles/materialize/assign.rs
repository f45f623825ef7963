//! Taking over a partition: find the chain's end, compare it with the log, and start there (DESIGN 4, Edges).
//!
//! Runs beside the loop: a store that does not answer holds up neither a shutdown nor a revocation, and what can be opened does not
//! wait for what cannot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::cache::Limits;
use super::partition::{Content, Partition};
use super::{Materialize, OwnedPartition, joined};
use crate::cold::chain::{ChainWriter, newest_incarnation};
use crate::cold::gaps::gaps;
use crate::cold::object_store::ObjectStore;
use crate::cold::owner::Owners;
use crate::cold::segment::SegmentInfo;
use crate::error::{Error, Result};
use crate::hot::{Mark, marks_of_all_buckets};
use crate::kafka::ends::Ends;
use crate::kafka::intake::{AssignedPartition, StartAt};
use crate::retry::{Backoff, until_available};
use crate::roles::suspension::Suspension;
use crate::saga::installation::OF_ANOTHER;
use crate::saga::position::{ChainId, Offset, TopicPartition};

/// Alarm: what is stored of a partition cannot be read.
pub(super) const HISTORY_CORRUPT: &str = "history_corrupt";
/// Longest time in which none of some partitions could be opened, before it is begun anew.
const OPEN_WITHIN: Duration = Duration::from_secs(120);
/// The same, of those that others wait for.
const BESIDE_OTHERS: Duration = Duration::from_secs(5);
/// Fewest sagas that a partition's cache keeps.
const MIN_CACHED_SAGAS: usize = 256;
/// Bytes that the caches of all partitions keep.
const MAX_CACHED_BYTES: u64 = 512 << 20;
/// Fewest bytes that a partition's cache keeps.
const MIN_CACHED_BYTES: u64 = 8 << 20;

type Starts = Vec<(TopicPartition, StartAt)>;

/// What is known of a partition before it is read.
struct Opened {
    assigned: AssignedPartition,
    chain: ChainId,
    writer: ChainWriter,
    gaps: Vec<(Offset, Offset)>,
    /// Why the log is not the one that the chain was made from: code and reason.
    disagreement: Option<(&'static str, String)>,
}

/// Partitions that were assigned together, as far as they could be opened.
pub(super) struct Opening {
    number: u64,
    opened: Vec<(TopicPartition, Result<Opened>)>,
    /// Of each bucket.
    marks: Vec<HashMap<ChainId, Mark>>,
    reply: oneshot::Sender<Starts>,
}

impl Materialize {
    pub(super) fn assigned(&mut self, partitions: Vec<AssignedPartition>, reply: oneshot::Sender<Starts>) {
        let (objects, hot, ends) = (self.deps.objects.clone(), self.deps.hot.clone(), self.deps.ends.clone());
        let owners = self.settings.owners.clone();
        let names: Vec<TopicPartition> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
        let of = names.clone();
        self.tickets += 1;
        let number = self.tickets;
        let opening = self.opens.spawn(async move {
            let open = partitions.into_iter().map(|assigned| {
                let (partition, objects, ends) = (assigned.partition.clone(), objects.clone(), ends.clone());
                let owners = owners.clone();
                async move { (partition, open_and_compare(objects, &ends, &owners, assigned).await) }
            });
            let opened = in_time(open, &names).await;
            let marks = if opened.is_empty() { Vec::new() } else { marks_of_all_buckets(&*hot).await? };
            Ok(Opening { number, opened, marks, reply })
        });
        self.opening.insert(number, (opening, of));
    }

    /// Those of them that are being opened are so no more: the intake gives the others again.
    pub(super) fn open_no_more(&mut self, partitions: &[TopicPartition]) {
        // One that has just ended is not aborted by that any more: what it gives is not taken.
        self.opening.retain(|_, (opening, of)| {
            let is_ended = of.iter().any(|partition| partitions.contains(partition));
            if is_ended {
                opening.abort();
            }
            !is_ended
        });
    }

    pub(super) fn opens_ended(&mut self, done: std::result::Result<Result<Opening>, JoinError>) -> Result<()> {
        match done {
            // Of partitions that were taken away.
            Err(error) if error.is_cancelled() => Ok(()),
            done => self.opened(joined(done)??),
        }
    }

    /// Takes over what could be opened.
    pub(super) fn opened(&mut self, Opening { number, opened, marks, reply }: Opening) -> Result<()> {
        // Of partitions that were taken away, or the intake waits no longer: it stops.
        if self.opening.remove(&number).is_none() || reply.is_closed() {
            return Ok(());
        }
        let mut starts = Starts::with_capacity(opened.len());
        for (partition, opened) in opened {
            let start = match opened {
                Ok(Opened { disagreement: Some((code, reason)), .. }) => {
                    self.alarm(&partition, code, &reason);
                    StartAt::Stop
                }
                Ok(opened) => self.take_over(opened, &marks),
                // Its leader is gone since it was described: the others need not wait for it.
                Err(Error::Unavailable(reason)) => {
                    tracing::warn!(%partition, reason, "partition not taken over yet");
                    StartAt::Later
                }
                Err(Error::Corrupt(reason)) => {
                    self.alarm(&partition, HISTORY_CORRUPT, &reason);
                    StartAt::Stop
                }
                Err(other) => return Err(other),
            };
            starts.push((partition, start));
        }
        self.share_cache();
        self.assigned_metric();
        if !starts.iter().any(|(_, start)| *start == StartAt::Later) {
            (self.deps.assigned)(true);
        }
        let _ = reply.send(starts);
        Ok(())
    }

    /// Each partition's share of the cache: as many are owned now.
    pub(super) fn share_cache(&mut self) {
        let owned = self.owned.len().max(1);
        let share = Limits {
            sagas: (self.settings.max_cached_sagas / owned).max(MIN_CACHED_SAGAS),
            bytes: (MAX_CACHED_BYTES / owned as u64).max(MIN_CACHED_BYTES),
        };
        self.owned.values_mut().for_each(|owned| owned.partition.cache.set_limits(share));
    }

    fn take_over(&mut self, opened: Opened, marks: &[HashMap<ChainId, Mark>]) -> StartAt {
        let Opened { assigned, chain, writer, gaps, disagreement: _ } = opened;
        let partition = assigned.partition;
        let (now, wall) = (Instant::now(), (self.deps.now)());
        let told = marks.iter().flat_map(HashMap::values).map(|mark| mark.complete_through);
        for through in told.chain(writer.newest().map(|newest| newest.complete_through)) {
            self.deps.clock.carried(through, now, wall);
        }
        let content = if *partition.topic == *self.settings.log { Content::ReplayLog } else { Content::StepEvents };
        let known = marks.iter().map(|bucket| bucket.get(&chain).copied()).collect();
        let start = writer.next();
        let least = Limits { sagas: MIN_CACHED_SAGAS, bytes: MIN_CACHED_BYTES };
        self.deps.history_of(content).learn_chain(writer.view());
        let mut state = Partition::new(chain, content, start, least, known);
        state.gaps = gaps;
        state.clock = writer.newest().map(|newest| newest.clock).unwrap_or_default();
        self.generation += 1;
        let committed = assigned.committed.map(|(offset, _)| offset);
        let leader_epoch = writer.newest().and_then(|newest| newest.leader_epoch);
        let at = match leader_epoch {
            Some(epoch) => StartAt::OffsetInEpoch(start, epoch),
            None => StartAt::Offset(start),
        };
        let owned = OwnedPartition {
            partition: state,
            uncommitted: writer.newest().is_some() && committed != Some(start),
            writer: Some(writer),
            flush: None,
            generation: self.generation,
            topic_id: assigned.topic_id,
            leader_epoch: assigned.leader_epoch,
            sends: super::publish::Sends::default(),
            stopped: false,
            checked: Instant::now(),
            settle_not_before: Instant::now(),
            not_before: Instant::now(),
            loading: Backoff::new("fold records of a partition"),
            waits: None,
            given_up: None,
            rest: Suspension::new(Instant::now()),
            slow_report_at: None,
        };
        self.is_clear(&partition);
        self.owned.insert(partition, owned);
        // Where the partition ends was read before the chain was opened: what time that holds for, only asking tells.
        self.ends_asked = None;
        at
    }
}

/// What was opened, and of the others that it was not. Once some are open they wait a moment for the others; before that longer.
async fn in_time<F>(open: impl Iterator<Item = F>, names: &[TopicPartition]) -> Vec<(TopicPartition, Result<Opened>)>
where
    F: Future<Output = (TopicPartition, Result<Opened>)>,
{
    let mut under_way: FuturesUnordered<F> = open.collect();
    let mut deadline = tokio::time::Instant::now() + OPEN_WITHIN;
    let mut opened = Vec::with_capacity(names.len());
    while let Ok(Some(one)) = tokio::time::timeout_at(deadline, under_way.next()).await {
        opened.push(one);
        deadline = deadline.min(tokio::time::Instant::now() + BESIDE_OTHERS);
    }
    let slow: Vec<&TopicPartition> = names.iter().filter(|name| opened.iter().all(|(of, _)| of != *name)).collect();
    opened.extend(slow.into_iter().map(|name| (name.clone(), Err(Error::unavailable("open chain: not in time, trying again")))));
    opened
}

async fn open_and_compare(
    objects: Arc<dyn ObjectStore>,
    ends: &Ends,
    owners: &Owners,
    assigned: AssignedPartition,
) -> Result<Opened> {
    let mut opened = until_available("open chain", || open(objects.clone(), assigned.clone())).await?;
    let mut log = Log { earliest: assigned.earliest, end: assigned.end, topic_id: assigned.topic_id.clone() };
    if opened.writer.next() > log.end {
        // The end was read first: an owner before, cut off from the group alone, may have gone on meanwhile.
        let now = ends.ends(std::slice::from_ref(&assigned.partition)).await?;
        log.end = now.first().map_or(log.end, |(_, end)| *end);
    }
    opened.disagreement = disagreement(&log, opened.writer.next(), opened.writer.newest(), owners);
    Ok(opened)
}

async fn open(objects: Arc<dyn ObjectStore>, assigned: AssignedPartition) -> Result<Opened> {
    let TopicPartition { topic, partition } = assigned.partition.clone();
    let incarnation = newest_incarnation(&*objects, &topic, partition).await?;
    let chain = ChainId { topic, incarnation, partition };
    let writer = ChainWriter::open(objects.clone(), chain.clone(), Some(assigned.earliest)).await?;
    let gaps = gaps(&*objects, &chain).await?;
    Ok(Opened { assigned, chain, writer, gaps, disagreement: None })
}

/// What Kafka says of a partition.
#[derive(Debug, Clone)]
pub struct Log {
    /// The oldest offset that is still there.
    pub earliest: Offset,
    /// High watermark.
    pub end: Offset,
    pub topic_id: Option<String>,
}

/// Why the log is not the one that the chain was made from, if so: code and reason.
pub fn disagreement(log: &Log, next: Offset, newest: Option<&SegmentInfo>, owners: &Owners) -> Option<(&'static str, String)> {
    if let Some(Err(of_another)) = newest.map(|newest| owners.check_segment(newest)) {
        return Some((OF_ANOTHER, of_another.to_string()));
    }
    let (earliest, end) = (log.earliest, log.end);
    let was = newest.and_then(|newest| newest.topic_id.as_ref());
    if let (Some(was), Some(is)) = (was, &log.topic_id)
        && was != is
    {
        return Some(("topic_replaced", "the topic was deleted and created again".into()));
    }
    if next < earliest {
        let reason = format!("offsets {next} to {} were deleted before they were durable (retention)", earliest.0 - 1);
        return Some(("offsets_gone", reason));
    }
    if next > end {
        let reason = format!("the partition ends at {end} but was durable to {next}: it was replaced or truncated");
        return Some(("offsets_replaced", reason));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(earliest: i64, end: i64) -> Log {
        Log { earliest: Offset(earliest), end: Offset(end), topic_id: None }
    }

    #[test]
    fn a_chain_that_ends_inside_the_log_goes_on() {
        for next in [5, 7, 9] {
            assert_eq!(disagreement(&log(5, 9), Offset(next), None, &Owners::default()), None);
        }
    }

    #[test]
    fn offsets_that_are_gone_or_replaced_stop_the_partition() {
        assert_eq!(disagreement(&log(5, 9), Offset(4), None, &Owners::default()).map(|(code, _)| code), Some("offsets_gone"));
        assert_eq!(
            disagreement(&log(5, 9), Offset(10), None, &Owners::default()).map(|(code, _)| code),
            Some("offsets_replaced")
        );
    }
}
