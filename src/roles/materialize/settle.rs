//! Letting hot go of what is durable: keys of sagas at rest may expire, long ones lose their durable head.
//!
//! How far that is done stands in the marks, so it is made up for after a crash, a fail-over or a long outage: what was
//! made durable since is read from cold, segment after segment.

use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::hot_writer::HotWork;
use super::{HEARTBEAT, Materialize, OwnedPartition};
use crate::error::Result;
use crate::hot::{DurableSaga, KEPT};
use crate::saga::position::{Offset, TopicPartition};

/// Sagas in the write that waits while another runs; with more of them the rest is read from cold later.
const MAX_NEXT_SETTLED: usize = 100_000;
/// Before a chain that could not be read is tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

/// The sagas of the segment at the place where settling stopped, and where the next begins. `None`: there is none.
pub struct Behind {
    partition: TopicPartition,
    generation: u64,
    from: Offset,
    read: Result<Option<(Vec<DurableSaga>, Offset)>>,
}

/// Sagas that have got so long with a row of this buffer that hot need not keep all of it, at rest or not.
pub fn long_sagas(buffer: &Buffer, durable: Offset) -> impl Iterator<Item = DurableSaga> {
    let rows = buffer.rows().iter().map(|row| &row.entry).filter(move |entry| entry.position.offset < durable);
    let long = rows.filter(|entry| entry.sequence.0.is_multiple_of(KEPT));
    long.map(|entry| DurableSaga { saga: entry.event.saga_id.clone(), sequence: entry.sequence })
}

impl Materialize {
    /// After the segment that begins at `start`: its sagas are known.
    pub(super) fn settle_flushed(
        &mut self,
        partition: &TopicPartition,
        start: Offset,
        long: Vec<DurableSaga>,
        at_rest: Vec<DurableSaga>,
    ) {
        let has_room = self.has_room_to_settle();
        let Some(owned) = self.owned.get_mut(partition) else { return };
        let mut work = HotWork::default();
        // What was folded by another owner, or when there was no room, comes first, and from cold.
        if owned.partition.settled == start && has_room {
            owned.partition.settled = owned.partition.durable;
            work.settle(at_rest);
        }
        work.settle(long);
        self.queue_hot(work);
    }

    fn has_room_to_settle(&self) -> bool {
        self.next.as_ref().is_none_or(|next| next.settle.len() < MAX_NEXT_SETTLED)
    }

    /// Reads the next segment of a partition that is behind, one at a time.
    pub(super) fn settle_behind(&mut self) {
        if !self.settling.is_empty() || !self.has_room_to_settle() {
            return;
        }
        let now = Instant::now();
        let is_behind = |owned: &OwnedPartition| {
            let partition = &owned.partition;
            !partition.disowned && partition.settled < partition.durable && owned.settle_not_before <= now
        };
        let behind = self.owned.iter().find(|(_, owned)| is_behind(owned));
        let Some((partition, owned)) = behind else { return };
        let (partition, generation) = (partition.clone(), owned.generation);
        let (chain, from) = (owned.partition.chain.clone(), owned.partition.settled);
        let history = self.deps.history_of(owned.partition.content).clone();
        self.settling.spawn(async move {
            let read = history.durable_sagas(&chain, from).await;
            Behind { partition, generation, from, read }
        });
    }

    pub(super) fn settled(&mut self, Behind { partition, generation, from, read }: Behind) {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.generation == generation) else { return };
        let (sagas, next) = match read {
            Ok(Some(found)) => found,
            // The reader's view of the chain is not that far yet.
            Ok(None) => return owned.settle_not_before = Instant::now() + HEARTBEAT,
            // Others go on meanwhile: a chain that cannot be read must not keep all keys from expiring.
            Err(reason) => {
                owned.settle_not_before = Instant::now() + UNREADABLE_PAUSE;
                return tracing::warn!(%partition, %reason, "durable sagas not read: their keys in the hot store do not expire yet");
            }
        };
        // A store that failed over meanwhile may be further behind.
        if owned.partition.settled == from {
            owned.partition.settled = next;
        }
        let mut work = HotWork::default();
        work.settle(sagas);
        self.queue_hot(work);
        self.settle_behind();
    }
}
