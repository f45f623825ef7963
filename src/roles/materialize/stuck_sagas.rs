//! How many sagas are stuck now, for the gauge: of the partitions that are owned here and were read to their end, so that the sum over
//! processes is right.
//!
//! A partition's open sagas are followed as they are folded; those that moved last before it was taken over are asked for in history
//! once, when all that was folded before is durable. Then a count costs no request.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::clocks::Clocks;
use super::content::Content;
use super::open_sagas::MovedAt;
use super::ownership::Ownership;
use super::partitions::{OwnedPartition, Partitions};
use crate::error::Result;
use crate::history::History;
use crate::history::open_sagas::OpenSaga;
use crate::saga::position::TopicPartition;
use crate::saga::stuck::StuckLimits;
use crate::saga::time::Micros;
use crate::telemetry::Metrics;

/// How often they are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Open sagas that history is asked for at once, over all partitions that wait.
const MAX_LEARNT: usize = 2_000_000;

/// What history has of these partitions.
struct Learnt {
    of: Vec<Ownership>,
    open: Result<Vec<OpenSaga>>,
}

pub struct StuckSagas {
    history: History,
    limits: Arc<StuckLimits>,
    clocks: Clocks,
    /// Microseconds: those that moved last longer ago do not count.
    keep: i64,
    counted_at: Instant,
    /// One at most.
    asking: JoinSet<Learnt>,
    /// Names with a series.
    shown: HashSet<String>,
}

impl StuckSagas {
    pub fn new(history: History, clocks: Clocks, keep: Duration, now: Instant) -> Self {
        let limits = Arc::new(history.stuck_limits().clone());
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        Self { history, limits, clocks, keep, counted_at: now, asking: JoinSet::new(), shown: HashSet::new() }
    }

    pub fn count_if_due(&mut self, partitions: &mut Partitions, metrics: &Metrics, now: Instant) {
        if now.duration_since(self.counted_at) < COUNT_EVERY {
            return;
        }
        self.counted_at = now;
        for (_, owned) in followed(partitions) {
            let partition = &mut owned.partition;
            if partition.completeness.at(partition.position).is_some() {
                partition.open_sagas.follow_from(partition.position, &self.limits);
            }
        }
        while let Some(learnt) = self.asking.try_join_next() {
            match learnt {
                Ok(learnt) => take(learnt, partitions),
                Err(reason) => tracing::debug!(%reason, "running sagas not asked for to the end"),
            }
        }
        if self.asking.is_empty() {
            self.ask(partitions);
        }
        self.show(partitions, metrics);
    }

    fn kept_from(&self) -> Micros {
        self.clocks.latest().saturating_add(self.keep.saturating_neg())
    }

    /// Of the partitions of which that is all durable which was folded before they were followed.
    fn ask(&mut self, partitions: &mut Partitions) {
        let is_due = |owned: &OwnedPartition| {
            let partition = &owned.partition;
            let is_durable = |below| below <= partition.durable || partition.undurable_rows() == 0 && partition.active.is_empty();
            partition.open_sagas.unknown_below().is_some_and(is_durable)
        };
        let due = followed(partitions).filter(|(_, owned)| is_due(owned));
        let of: Vec<Ownership> =
            due.map(|(of, owned)| Ownership { partition: of.clone(), generation: owned.generation }).collect();
        if of.is_empty() {
            return;
        }
        let (history, since) = (self.history.clone(), self.kept_from());
        self.asking.spawn(async move {
            let names: Vec<TopicPartition> = of.iter().map(|of| of.partition.clone()).collect();
            Learnt { open: history.open_sagas(&names, since, MAX_LEARNT).await, of }
        });
    }

    fn show(&mut self, partitions: &mut Partitions, metrics: &Metrics) {
        let kept_from = self.kept_from();
        let gauge = |name: &str| metrics.stuck_sagas.with_label_values(&[name]);
        let mut counts: Vec<(String, i64)> = self.shown.iter().map(|name| (name.clone(), 0)).collect();
        for (_, owned) in followed(partitions) {
            let partition = &mut owned.partition;
            let through = partition.completeness.at(partition.position).filter(|_| partition.open_sagas.is_complete());
            let Some(through) = through else { continue };
            for (name, count) in partition.open_sagas.stuck(through, kept_from) {
                let name = metrics.saga_name(name);
                match counts.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum += count,
                    None => counts.push((name.to_owned(), count)),
                }
            }
        }
        for (name, count) in counts {
            gauge(&name).set(count);
            self.shown.insert(name);
        }
    }
}

fn followed(partitions: &mut Partitions) -> impl Iterator<Item = (&TopicPartition, &mut OwnedPartition)> {
    partitions.iter_mut().filter(|(_, owned)| owned.partition.content == Content::StepEvents && !owned.partition.disowned)
}

fn take(Learnt { of, open }: Learnt, partitions: &mut Partitions) {
    let open = match open {
        Ok(open) => open,
        Err(reason) => {
            tracing::debug!(%reason, "running sagas not known yet");
            return;
        }
    };
    for of in of {
        let Some(owned) = partitions.current_mut(&of) else { continue };
        let sagas = &mut owned.partition.open_sagas;
        for saga in open.iter().filter(|saga| saga.partition == of.partition) {
            sagas.learn(&saga.saga_id, &saga.saga_name, MovedAt { effective: saga.effective_time, recorded: saga.recorded_time });
        }
        sagas.complete();
    }
}
