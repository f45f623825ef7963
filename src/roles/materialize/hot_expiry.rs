//! Which keys of the hot store may expire: those of sagas that are all durable, and of long ones the durable head is trimmed.
//!
//! How far that is done stands in the marks, so it is made up for after a crash, a fail-over or a long outage: what was
//! made durable since is read from cold, segment after segment.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::background::joined;
use super::content::Histories;
use super::hot_writer::HotWork;
use super::ownership::Ownership;
use super::partitions::{OwnedPartition, Partitions};
use super::undurable::UndurableBuffer;
use crate::error::Result;
use crate::hot::{DurableSaga, KEPT};
use crate::saga::position::Offset;

/// Before the next look where the reader's view of the chain is not that far yet.
const NOT_YET_PAUSE: Duration = Duration::from_secs(1);
/// Before a chain that could not be read is tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

/// The sagas of a segment that was just made durable.
pub struct DurableSegment {
    pub start: Offset,
    /// So long now that hot need not keep all of them.
    pub long: Vec<DurableSaga>,
    /// With nothing that is not durable.
    pub at_rest: Vec<DurableSaga>,
}

/// The sagas of the segment from where keys do not expire yet.
pub struct SegmentRead {
    ownership: Ownership,
    from: Offset,
    /// And where the next segment begins. `None`: there is no such segment.
    read: Result<Option<(Vec<DurableSaga>, Offset)>>,
}

/// Sagas that have got so long with a row of this buffer that hot need not keep all of it, at rest or not.
pub fn long_sagas(buffer: &UndurableBuffer, durable: Offset) -> impl Iterator<Item = DurableSaga> {
    let rows = buffer.rows().iter().map(|row| &row.entry).filter(move |entry| entry.position.offset < durable);
    let long = rows.filter(|entry| entry.sequence.0.is_multiple_of(KEPT));
    long.map(|entry| DurableSaga { saga: entry.event.saga_id.clone(), sequence: entry.sequence })
}

pub struct HotExpiry {
    histories: Histories,
    /// One at most.
    reads: JoinSet<SegmentRead>,
}

impl HotExpiry {
    pub fn new(histories: Histories) -> Self {
        Self { histories, reads: JoinSet::new() }
    }

    /// What may expire after a flush. `has_room`: the hot pipeline takes more.
    pub fn expire_after_flush(&self, owned: &mut OwnedPartition, segment: DurableSegment, has_room: bool) -> HotWork {
        let mut work = HotWork::default();
        // What was folded by another owner, or when there was no room, comes first, and from cold.
        if owned.partition.settled == segment.start && has_room {
            owned.partition.settled = owned.partition.durable;
            work.settle(segment.at_rest);
        }
        work.settle(segment.long);
        work
    }

    /// Reads the next segment of a partition that is behind, one at a time.
    pub fn read_behind(&mut self, partitions: &Partitions, has_room: bool) {
        if !self.reads.is_empty() || !has_room {
            return;
        }
        let now = Instant::now();
        let is_behind = |owned: &OwnedPartition| {
            let partition = &owned.partition;
            !partition.disowned && partition.settled < partition.durable && owned.expiry_not_before <= now
        };
        let Some((partition, owned)) = partitions.iter().find(|(_, owned)| is_behind(owned)) else { return };
        let ownership = Ownership { partition: partition.clone(), generation: owned.generation };
        let (chain, from) = (owned.partition.chain.clone(), owned.partition.settled);
        let history = self.histories.of(owned.partition.content).clone();
        self.reads.spawn(async move {
            let read = history.durable_sagas(&chain, from).await;
            SegmentRead { ownership, from, read }
        });
    }

    pub fn is_idle(&self) -> bool {
        self.reads.is_empty()
    }

    /// `None`: nothing is being read. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<SegmentRead>> {
        self.reads.join_next().await.map(joined)
    }

    /// What may expire after a segment was read; then the next is due.
    pub fn segment_read(&self, done: SegmentRead, partitions: &mut Partitions) -> Option<HotWork> {
        let SegmentRead { ownership, from, read } = done;
        let owned = partitions.current_mut(&ownership)?;
        let (sagas, next) = match read {
            Ok(Some(found)) => found,
            Ok(None) => {
                owned.expiry_not_before = Instant::now() + NOT_YET_PAUSE;
                return None;
            }
            // Others go on meanwhile: a chain that cannot be read must not keep all keys from expiring.
            Err(reason) => {
                owned.expiry_not_before = Instant::now() + UNREADABLE_PAUSE;
                tracing::warn!(
                    partition = %ownership.partition, %reason,
                    "durable sagas not read: their keys in the hot store do not expire yet"
                );
                return None;
            }
        };
        // A store that failed over meanwhile may be further behind.
        if owned.partition.settled == from {
            owned.partition.settled = next;
        }
        let mut work = HotWork::default();
        work.settle(sagas);
        Some(work)
    }
}
