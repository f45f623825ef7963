//! Reading as a member of a consumer group: one thread per intake, its rebalances told as messages with a reply.
//!
//! Positions come from the role, which knows what is durable; nothing is committed unless the role says so. The thread
//! waits for the role only when partitions are taken away, no longer than [`IntakeLimits`] say, and never blocks on the event
//! channel: a role may call the handle while it handles an event.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::consumer::ConsumerGroupMetadata;
use tokio::sync::{mpsc, oneshot};

use super::client::{Purpose, client_config};
use super::intake_thread::IntakeThread;
pub use super::memory_budget::MemoryPermit;
use super::reader::Reader;
use super::record::PartitionRecords;
pub use super::statistics::{IntakeStats, PartitionStats};
use crate::config;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, Topic, TopicPartition};

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

/// Where reading of an assigned partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    Offset(Offset),
    /// As `Offset`, and the log must still agree on the epoch of the record before: if an unclean election replaced it,
    /// [`IntakeEvent::OffsetsGone`] follows.
    OffsetInEpoch(Offset, i32),
    /// Keep the partition but do not read it, until `seek` and `resume`.
    Stop,
    /// As `Stop`; it is assigned again after a moment.
    Later,
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
    /// What comes of the partition from here on is what [`Intake::read_again`] with this ticket asked for, unless that failed.
    ReadsAgain { partition: TopicPartition, ticket: u64, outcome: Result<()> },
    /// Every few seconds.
    Stats(IntakeStats),
    /// The intake has stopped and left the group. The last event.
    Failed(Error),
}

/// The membership under which requests were read: the fence of a transaction that commits their offsets.
#[derive(Clone)]
pub struct GroupMetadata(pub(super) Arc<ConsumerGroupMetadata>);

impl std::fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupMetadata")
    }
}

/// What a handle asks of its thread.
pub(super) enum Command {
    Pause(Vec<TopicPartition>, Reply<()>),
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

/// Most calls that wait for the thread at once.
const MAX_WAITING_COMMANDS: usize = 64;
/// Most events that wait for the role; records are bounded by bytes besides.
const MAX_WAITING_EVENTS: usize = 256;

/// The handle. Cheap to clone; when all are dropped the thread leaves the group without asking the role.
#[derive(Debug, Clone)]
pub struct Intake {
    commands: SyncSender<Command>,
    /// Of the intake: a command wakes it.
    thread: Thread,
}

impl Intake {
    /// Joins `group` and reads `topics`. Wrong settings are an error here; a broker that does not answer is not.
    pub fn start(
        kafka: &config::Kafka,
        group: &str,
        topics: &[Topic],
        limits: IntakeLimits,
    ) -> Result<(Self, mpsc::Receiver<IntakeEvent>)> {
        let reader = Reader::new(&client_config(kafka, Purpose::Member { group })?)?;
        reader.subscribe(topics)?;
        let (commands, received) = sync_channel(MAX_WAITING_COMMANDS);
        let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        let thread = std::thread::Builder::new()
            .name(format!("intake {group}"))
            .spawn(move || IntakeThread::new(reader, limits, received, events).run())
            .map_err(|e| Error::unavailable(format!("start intake thread: {e}")))?;
        Ok((Self { commands, thread: thread.thread().clone() }, receiver))
    }

    /// The handle of a thread that has ended, for tests that bring the records in themselves.
    #[cfg(test)]
    pub fn unattended() -> Self {
        Self { commands: sync_channel(1).0, thread: std::thread::current() }
    }

    /// Stops reading partitions; they stay assigned. Those that are not assigned are passed over.
    pub async fn pause(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        self.ask(|reply| Command::Pause(partitions, reply)).await
    }

    /// Reads paused partitions on from where they were.
    pub async fn resume(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        self.ask(|reply| Command::Resume(partitions, reply)).await
    }

    /// Commits the next offsets to read, with a text for each. An offset below the last one committed here is passed over.
    /// `Refused` [`NOT_ASSIGNED`](super::NOT_ASSIGNED): a partition is not ours any more.
    pub async fn commit(&self, offsets: Vec<(TopicPartition, Offset, String)>) -> Result<()> {
        self.ask(|reply| Command::Commit(offsets, reply)).await
    }

    /// Reads `partition` on from `offset`, whatever was read before; a paused or stopped one stays paused.
    /// Records that wait in the event channel still come first.
    pub async fn seek(&self, partition: TopicPartition, offset: Offset) -> Result<()> {
        self.ask(|reply| Command::Seek(partition, offset, reply)).await
    }

    /// Stops reading a partition; what was read of it and is on its way still comes. Waits for nothing.
    pub fn let_go(&self, partition: TopicPartition) -> Result<()> {
        self.tell(Command::LetGo(partition))
    }

    /// Reads a partition that was let go of on from `offset`. Waits for nothing: [`IntakeEvent::ReadsAgain`] comes behind what
    /// was on its way, and before the first record.
    pub fn read_again(&self, partition: TopicPartition, offset: Offset, ticket: u64) -> Result<()> {
        self.tell(Command::ReadAgain(partition, offset, ticket))
    }

    /// Stops reading partitions of ours; after a moment [`IntakeEvent::Assigned`] gives them again, as at the first time.
    pub async fn assign_later(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        self.ask(|reply| Command::AssignLater(partitions, reply)).await
    }

    /// As [`Self::assign_later`], of one partition. Waits for nothing.
    pub fn reassign(&self, partition: TopicPartition) -> Result<()> {
        self.tell(Command::AssignLater(vec![partition], oneshot::channel().0))
    }

    /// The membership as it is now. `Refused` [`NOT_ASSIGNED`](super::NOT_ASSIGNED) between memberships: without a
    /// generation the broker would not fence.
    pub async fn group_metadata(&self) -> Result<GroupMetadata> {
        self.ask(Command::GroupMetadata).await
    }

    /// Revokes everything (the role answers [`IntakeEvent::Revoked`] as always), leaves the group and ends the thread.
    /// A static member does not leave: its partitions wait for it for `session.timeout.ms`.
    pub async fn stop(&self) -> Result<()> {
        self.ask(Command::Stop).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply))?;
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("ask intake: it stopped before the answer")))
    }

    fn tell(&self, command: Command) -> Result<()> {
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => Error::unavailable("ask intake: too many calls wait"),
            TrySendError::Disconnected(_) => Error::unavailable("ask intake: it has stopped"),
        })?;
        self.thread.unpark();
        Ok(())
    }
}
