//! What an intake's thread tells its role, and what the role asks of it.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::kafka::memory_budget::MemoryPermit;
use crate::kafka::reader::StartAt;
use crate::kafka::record::PartitionRecords;
use crate::kafka::statistics::IntakeStats;
use crate::saga::position::{Offset, TopicPartition};

/// Bounds of an intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Records in one [`IntakeEvent::Records`].
    pub batch_records: usize,
    /// Bytes in one [`IntakeEvent::Records`]; the last record may go over it.
    pub batch_bytes: usize,
    /// Bytes of all records that were handed out and whose [`MemoryPermit`] is not dropped yet.
    pub held_bytes: u64,
    /// Longest wait for the reply to [`IntakeEvent::Revoked`]; after it the partitions are given up all the same.
    pub revoke_timeout: Duration,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self { batch_records: 2_000, batch_bytes: 2 << 20, held_bytes: 16 << 20, revoke_timeout: Duration::from_secs(45) }
    }
}

/// What the group gave us, and what Kafka knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedPartition {
    pub partition: TopicPartition,
    /// The group's committed offset and the text committed with it.
    pub committed: Option<(Offset, String)>,
    /// The oldest offset that is still there.
    pub earliest: Offset,
    /// High watermark, never the last stable offset.
    pub end: Offset,
    /// Leader epoch at the end.
    pub leader_epoch: Option<i32>,
    /// Kafka's id of the topic (base64): another one means the topic was deleted and created again.
    pub topic_id: Option<String>,
}

#[derive(Debug)]
pub enum IntakeEvent {
    /// Partitions were added (possibly none, when the group agreed on nothing new for us, or when none of them has a leader that tells
    /// where it begins and ends: such come later, by themselves). Reading of them starts with the reply; partitions that it does not
    /// name are not read. Until then they may be revoked; one that drops the question is asked again after a moment.
    Assigned { partitions: Vec<AssignedPartition>, reply: oneshot::Sender<Vec<(TopicPartition, StartAt)>> },
    /// Partitions are taken away, or (`lost`) are already another member's: then commits are refused. No event of them
    /// follows after the reply.
    Revoked { partitions: Vec<TopicPartition>, lost: bool, reply: oneshot::Sender<()> },
    /// Records, each partition at most once. Keep what is held with a partition's for as long as they are in memory.
    Records { batch: Vec<(PartitionRecords, MemoryPermit)> },
    /// The position is at the last stable offset. It passes control records; while a transaction is open it is below
    /// the partition's end. Comes again whenever the end moved and was reached again.
    ReachedEnd { partition: TopicPartition, position: Offset },
    /// The offset to read is not in the log (retention, re-created topic, unclean election); the partition is not read on.
    OffsetsGone { partition: TopicPartition, position: Offset, reason: String },
    /// What comes of the partition from here on is what [`Intake::read_again`](super::Intake::read_again) with this ticket asked for, unless that failed.
    ReadsAgain { partition: TopicPartition, ticket: u64, outcome: Result<()> },
    /// Every few seconds.
    Stats(IntakeStats),
    /// The intake has stopped and left the group. The last event.
    Failed(Error),
}

/// The membership under which requests were read: the fence of a transaction that commits their offsets.
#[derive(Clone)]
pub struct GroupMetadata(pub(in crate::kafka) Arc<ConsumerGroupMetadata>);

impl std::fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupMetadata")
    }
}

/// What a handle asks of its thread.
pub(super) enum IntakeCommand {
    Pause(Vec<TopicPartition>, Reply<()>),
    #[cfg(feature = "testing")]
    Resume(Vec<TopicPartition>, Reply<()>),
    Commit(Vec<(TopicPartition, Offset, String)>, Reply<()>),
    Seek(TopicPartition, Offset, Reply<()>),
    LetGo(TopicPartition),
    ReadAgain(TopicPartition, Offset, u64),
    AssignLater(Vec<TopicPartition>, Reply<()>),
    GroupMetadata(Reply<GroupMetadata>),
    Stop(Reply<()>),
}

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;
