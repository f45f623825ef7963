//! Reading as a member of a consumer group: one thread per intake, its rebalances are messages with a reply.
//!
//! Positions come from the role, which knows what is durable; nothing is committed unless the role says so. The thread
//! waits for the role only when partitions are taken away, no longer than [`IntakeLimits`] say, and never blocks on the event
//! channel: a role may call the handle while it handles an event.

mod event;
mod thread;

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::Thread;

use tokio::sync::{mpsc, oneshot};

use super::client::{Purpose, client_config};
pub use super::memory_budget::MemoryPermit;
use super::reader::PartitionReader;
pub use super::reader::StartAt;
pub use super::statistics::IntakeStats;
use crate::config;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, Topic, TopicPartition};
pub use event::{AssignedPartition, GroupMetadata, IntakeEvent, IntakeLimits};
use event::{IntakeCommand, Reply};
use thread::IntakeThread;

/// Most calls that wait for the thread at once.
const MAX_WAITING_COMMANDS: usize = 64;
/// Most events that wait for the role; records are bounded by bytes besides.
const MAX_WAITING_EVENTS: usize = 256;

/// The handle. Cheap to clone; when all are dropped the thread leaves the group without asking the role.
#[derive(Debug, Clone)]
pub struct Intake {
    commands: SyncSender<IntakeCommand>,
    /// Of the intake: a command wakes it.
    thread: Thread,
}

impl Intake {
    /// Joins `group` and reads `topics`. Wrong settings are an error here; a broker that does not answer is not.
    pub fn start(
        kafka: &config::KafkaConfig,
        group: &str,
        topics: &[Topic],
        limits: IntakeLimits,
    ) -> Result<(Self, mpsc::Receiver<IntakeEvent>)> {
        let reader = PartitionReader::new(&client_config(kafka, Purpose::Member { group })?)?;
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
        self.ask(|reply| IntakeCommand::Pause(partitions, reply)).await
    }

    /// Reads paused partitions on from where they were.
    #[cfg(feature = "testing")]
    pub async fn resume(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        self.ask(|reply| IntakeCommand::Resume(partitions, reply)).await
    }

    /// Commits the next offsets to read, with a text for each. An offset below the last one committed here is passed over.
    /// `Refused` [`NOT_ASSIGNED`](super::NOT_ASSIGNED): a partition is not ours any more.
    pub async fn commit(&self, offsets: Vec<(TopicPartition, Offset, String)>) -> Result<()> {
        self.ask(|reply| IntakeCommand::Commit(offsets, reply)).await
    }

    /// Reads `partition` on from `offset`, whatever was read before; a paused or stopped one stays paused.
    /// Records that wait in the event channel still come first.
    pub async fn seek(&self, partition: TopicPartition, offset: Offset) -> Result<()> {
        self.ask(|reply| IntakeCommand::Seek(partition, offset, reply)).await
    }

    /// Stops reading a partition; what was read of it and is on its way still comes. Waits for nothing.
    pub fn let_go(&self, partition: TopicPartition) -> Result<()> {
        self.tell(IntakeCommand::LetGo(partition))
    }

    /// Reads a partition that was let go of on from `offset`. Waits for nothing: [`IntakeEvent::ReadsAgain`] comes behind what
    /// was on its way, and before the first record.
    pub fn read_again(&self, partition: TopicPartition, offset: Offset, ticket: u64) -> Result<()> {
        self.tell(IntakeCommand::ReadAgain(partition, offset, ticket))
    }

    /// Stops reading partitions of ours; after a moment [`IntakeEvent::Assigned`] gives them again, as at the first time.
    pub async fn assign_later(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        self.ask(|reply| IntakeCommand::AssignLater(partitions, reply)).await
    }

    /// As [`Self::assign_later`], of one partition. Waits for nothing.
    pub fn reassign(&self, partition: TopicPartition) -> Result<()> {
        self.tell(IntakeCommand::AssignLater(vec![partition], oneshot::channel().0))
    }

    /// The membership as it is now. `Refused` [`NOT_ASSIGNED`](super::NOT_ASSIGNED) between memberships: without a
    /// generation the broker would not fence.
    pub async fn group_metadata(&self) -> Result<GroupMetadata> {
        self.ask(IntakeCommand::GroupMetadata).await
    }

    /// Revokes everything (the role answers [`IntakeEvent::Revoked`] as always), leaves the group and ends the thread.
    /// A static member does not leave: its partitions wait for it for `session.timeout.ms`.
    pub async fn stop(&self) -> Result<()> {
        self.ask(IntakeCommand::Stop).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> IntakeCommand) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply))?;
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("ask intake: it stopped before the answer")))
    }

    fn tell(&self, command: IntakeCommand) -> Result<()> {
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => Error::unavailable("ask intake: too many calls wait"),
            TrySendError::Disconnected(_) => Error::unavailable("ask intake: it has stopped"),
        })?;
        self.thread.unpark();
        Ok(())
    }
}
