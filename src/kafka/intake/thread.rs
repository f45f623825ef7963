//! The thread behind an intake: polls, reports rebalances to the role and waits (bounded) for its replies, executes commands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::event::{AssignedPartition, GroupMetadata, IntakeCommand, IntakeEvent, IntakeLimits, Reply};
use crate::error::{Error, Result};
use crate::kafka::failure::{self, NOT_ASSIGNED};
use crate::kafka::memory_budget::MemoryBudget;
use crate::kafka::native::ConsumerEvent;
use crate::kafka::reader::{PartitionReader, StartAt, list_of};
use crate::kafka::statistics::{self, OpenTransactions};
use crate::kafka::{client_log, ends};
use crate::saga::position::{Offset, TopicPartition};

/// Longest sleep: records, rebalances, commands and room for records wake the thread.
const QUIET: Duration = Duration::from_millis(100);
/// Between two looks for what wakes nobody: room in the channel of events, and a role's reply.
const WAITING: Duration = Duration::from_millis(2);
/// The same, while the role opens partitions.
const OPENING: Duration = Duration::from_millis(10);
/// Longest wait for committed offsets: those of an open transaction are not stable until it times out (15 s).
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(20);
/// What is being done, and the one reason for no answer that lasts: a transaction that the brokers never end.
const READ_COMMITTED: &str = "read committed offsets (a hanging transaction holds them: kafka-transactions.sh find-hanging)";
/// Longest wait for one question to brokers.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause between two tries to describe a partition without a leader.
const FIRST_AGAIN: Duration = Duration::from_millis(200);
const LONGEST_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct IntakeThread {
    reader: PartitionReader,
    limits: IntakeLimits,
    budget: MemoryBudget,
    commands: Receiver<IntakeCommand>,
    events: mpsc::Sender<IntakeEvent>,
    /// Events that found the channel full. Nothing is read while there are any.
    outbox: VecDeque<IntakeEvent>,
    stopping: Option<Reply<()>>,
    later: Later,
    openings: Vec<StartQuestion>,
    open_transactions: OpenTransactions,
}

/// Partitions of which the role was asked where to start, with where they end.
struct StartQuestion {
    ends: Vec<(TopicPartition, Offset)>,
    answer: oneshot::Receiver<Vec<(TopicPartition, StartAt)>>,
}

/// Assigned partitions that could not be described, or that the role did not want yet.
#[derive(Default)]
struct Later {
    partitions: Vec<TopicPartition>,
    again: Option<Instant>,
    pause: Duration,
}

impl Later {
    fn add(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        for partition in partitions {
            if !self.partitions.contains(&partition) {
                self.partitions.push(partition);
            }
        }
        self.pause = (self.pause * 2).clamp(FIRST_AGAIN, LONGEST_AGAIN);
        self.again = (!self.partitions.is_empty()).then(|| Instant::now() + self.pause);
    }

    /// For the first time.
    fn at_once(&mut self, partitions: Vec<TopicPartition>) {
        self.add(partitions);
        (self.pause, self.again) = (Duration::ZERO, Some(Instant::now()));
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.partitions.retain(|partition| !partitions.contains(partition));
    }

    /// Those whose time has come.
    fn take_due(&mut self) -> Vec<TopicPartition> {
        if self.again.is_some_and(|again| Instant::now() >= again) {
            self.again = None;
            return std::mem::take(&mut self.partitions);
        }
        Vec::new()
    }
}

/// Why the thread ends.
enum IntakeExit {
    /// `stop` was called, with partitions to give up first.
    Asked,
    /// Nobody is left to talk to.
    ChannelClosed,
    Failed(Error),
}

impl IntakeThread {
    /// On the thread itself: what there is to do wakes it.
    pub(super) fn new(
        mut reader: PartitionReader,
        limits: IntakeLimits,
        commands: Receiver<IntakeCommand>,
        events: mpsc::Sender<IntakeEvent>,
    ) -> Self {
        let here = std::thread::current();
        reader.wakes(&here);
        let budget = MemoryBudget::new(limits.held_bytes, here);
        let (later, openings) = (Later::default(), Vec::new());
        Self {
            reader,
            limits,
            budget,
            commands,
            events,
            outbox: VecDeque::new(),
            stopping: None,
            later,
            openings,
            open_transactions: OpenTransactions::default(),
        }
    }

    pub(super) fn run(mut self) {
        let mut exit = self.serve().err().unwrap_or(IntakeExit::ChannelClosed);
        if let IntakeExit::Asked = exit
            && let Err(other) = self.revoke(&self.all_assigned(), false)
        {
            exit = other;
        }
        // Closing leaves the group (a static member stays in it until its session ends).
        drop(self.reader);
        if let IntakeExit::Failed(error) = exit {
            tracing::error!(error = %error, "intake stopped");
            // The role may be gone, or slow: its channel is bounded by what it still has to read.
            let _ = self.events.blocking_send(IntakeEvent::Failed(error));
        }
        if let Some(reply) = self.stopping {
            let _ = reply.send(Ok(()));
        }
    }

    /// What the group gave us, read or not.
    fn all_assigned(&self) -> Vec<TopicPartition> {
        let opening = self.openings.iter().flat_map(|opening| &opening.ends).map(|(partition, _)| partition);
        let mut all = self.reader.assigned();
        all.extend(self.later.partitions.iter().chain(opening).cloned());
        all.sort_unstable();
        all.dedup();
        all
    }

    fn serve(&mut self) -> Result<(), IntakeExit> {
        loop {
            while let Some(event) = self.reader.poll_group_event() {
                match event.read() {
                    ConsumerEvent::Assign(partitions) => self.assign(partitions)?,
                    ConsumerEvent::Revoke(partitions) => {
                        let partitions: Vec<_> = partitions.into_iter().map(|(t, p)| TopicPartition::new(t, p)).collect();
                        let lost = self.reader.consumer().assignment_lost();
                        self.revoke(&partitions, lost)?;
                    }
                    ConsumerEvent::Statistics(json) => {
                        if let Some(stats) = statistics::parse(json, &mut self.open_transactions, Instant::now()) {
                            self.tell(IntakeEvent::Stats(stats))?;
                        }
                    }
                    ConsumerEvent::Log { level, facility, message } => client_log::log(level, &facility, &message),
                    ConsumerEvent::Error { code, fatal: is_fatal, reason, .. } => {
                        if let Some(error) = self.reader.on_error(code, is_fatal, &reason) {
                            return Err(IntakeExit::Failed(error));
                        }
                    }
                    ConsumerEvent::Message(_) | ConsumerEvent::Other => {}
                }
            }
            self.run_commands()?;
            self.assign_due_partitions()?;
            self.start_opened_partitions()?;
            self.flush()?;
            if !self.outbox.is_empty() {
                std::thread::park_timeout(WAITING);
            } else if !self.budget.has_room() || !self.read()? {
                std::thread::park_timeout(if self.openings.is_empty() { QUIET } else { OPENING });
            }
        }
    }

    /// Is there more at hand?
    fn read(&mut self) -> Result<bool, IntakeExit> {
        let read = self.reader.read(self.limits.batch_records, self.limits.batch_bytes);
        if !read.batch.is_empty() {
            let batch = self.budget.hold_each(read.batch);
            self.tell(IntakeEvent::Records { batch })?;
        }
        for (partition, position) in read.ends {
            self.tell(IntakeEvent::ReachedEnd { partition, position })?;
        }
        for (partition, position, reason) in read.gone {
            self.tell(IntakeEvent::OffsetsGone { partition, position, reason })?;
        }
        read.failed.map_or(Ok(!read.exhausted), |error| Err(IntakeExit::Failed(error)))
    }

    /// The group's answer is given at once: what is read where comes later, so that a rebalance never waits for it.
    fn assign(&mut self, partitions: Vec<(String, i32)>) -> Result<(), IntakeExit> {
        let partitions: Vec<_> = partitions.into_iter().map(|(topic, partition)| TopicPartition::new(topic, partition)).collect();
        self.reader.answer_rebalance(&partitions).map_err(IntakeExit::Failed)?;
        if partitions.is_empty() {
            return self.ask_where_to_start(Vec::new());
        }
        self.later.at_once(partitions);
        Ok(())
    }

    /// Describes partitions whose time has come and asks the role where to start; what cannot be described comes again later.
    fn assign_due_partitions(&mut self) -> Result<(), IntakeExit> {
        let partitions = self.later.take_due();
        if partitions.is_empty() {
            return Ok(());
        }
        match self.describe(&partitions) {
            Ok(described) => {
                let is_missing = |partition: &TopicPartition| described.iter().all(|one| one.partition != *partition);
                self.defer(partitions.into_iter().filter(is_missing).collect());
                if described.is_empty() { Ok(()) } else { self.ask_where_to_start(described) }
            }
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, "describe assigned partitions");
                self.defer(partitions);
                Ok(())
            }
            Err(error) => Err(IntakeExit::Failed(error)),
        }
    }

    fn ask_where_to_start(&mut self, partitions: Vec<AssignedPartition>) -> Result<(), IntakeExit> {
        let ends = partitions.iter().map(|one| (one.partition.clone(), one.end)).collect();
        let (reply, answer) = oneshot::channel();
        self.openings.push(StartQuestion { ends, answer });
        self.tell(IntakeEvent::Assigned { partitions, reply })
    }

    /// Reads what the role has said where to start with.
    fn start_opened_partitions(&mut self) -> Result<(), IntakeExit> {
        let mut at = 0;
        while at < self.openings.len() {
            let answer = self.openings[at].answer.try_recv();
            if answer == Err(oneshot::error::TryRecvError::Empty) {
                at += 1;
                continue;
            }
            let ends = self.openings.swap_remove(at).ends;
            // What the role asked for of these partitions when they were ours before must not be done to them now.
            self.run_commands()?;
            // A role that dropped the question was told of a revocation, or is gone.
            let starts = answer.unwrap_or_else(|_| ends.iter().map(|(of, _)| (of.clone(), StartAt::Later)).collect());
            let start_of = |of: &TopicPartition| starts.iter().find(|(p, _)| p == of).map_or(StartAt::Stop, |(_, start)| *start);
            let placed: Vec<_> = ends.into_iter().map(|(partition, end)| (start_of(&partition), partition, end)).collect();
            self.defer(
                placed.iter().filter(|(start, ..)| *start == StartAt::Later).map(|(_, partition, _)| partition.clone()).collect(),
            );
            let open: Vec<_> = placed
                .into_iter()
                .filter(|(start, ..)| *start != StartAt::Later)
                .map(|(start, partition, end)| (partition, start, end))
                .collect();
            if !open.is_empty() {
                self.reader.start_reading(&open).map_err(IntakeExit::Failed)?;
            }
        }
        Ok(())
    }

    fn defer(&mut self, partitions: Vec<TopicPartition>) {
        if let Some(first) = partitions.first() {
            tracing::warn!(partitions = partitions.len(), %first, "assigned partitions cannot be read yet, trying again");
            self.later.add(partitions);
        }
    }

    /// Lets the role drain and commit, then gives the partitions up.
    fn revoke(&mut self, partitions: &[TopicPartition], lost: bool) -> Result<(), IntakeExit> {
        self.later.forget(partitions);
        for opening in &mut self.openings {
            opening.ends.retain(|(partition, _)| !partitions.contains(partition));
        }
        if !partitions.is_empty() {
            let (reply, answer) = oneshot::channel();
            self.tell(IntakeEvent::Revoked { partitions: partitions.to_vec(), lost, reply })?;
            if self.wait_for_reply(answer, Instant::now() + self.limits.revoke_timeout)?.is_none() {
                tracing::warn!(
                    partitions = partitions.len(),
                    "the role did not let partitions go in time; given up all the same"
                );
            }
        }
        self.reader.remove(partitions).map_err(IntakeExit::Failed)
    }

    /// `None`: no answer by the deadline, or the role dropped the question.
    fn wait_for_reply<T>(&mut self, mut answer: oneshot::Receiver<T>, deadline: Instant) -> Result<Option<T>, IntakeExit> {
        loop {
            self.flush()?;
            match answer.try_recv() {
                Ok(answer) => return Ok(Some(answer)),
                Err(oneshot::error::TryRecvError::Closed) => return Ok(None),
                Err(oneshot::error::TryRecvError::Empty) if Instant::now() >= deadline => return Ok(None),
                Err(oneshot::error::TryRecvError::Empty) => self.wait(WAITING)?,
            }
        }
    }

    /// Sleeps, at most this long, and does what it was woken for.
    fn wait(&mut self, timeout: Duration) -> Result<(), IntakeExit> {
        std::thread::park_timeout(timeout);
        self.run_commands()
    }

    fn run_commands(&mut self) -> Result<(), IntakeExit> {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.run_command(command)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(IntakeExit::ChannelClosed),
            }
        }
    }

    fn run_command(&mut self, command: IntakeCommand) -> Result<(), IntakeExit> {
        // A caller that no longer waits for the answer is no error.
        match command {
            IntakeCommand::Pause(partitions, reply) => drop(reply.send(self.reader.pause(&partitions))),
            #[cfg(feature = "testing")]
            IntakeCommand::Resume(partitions, reply) => drop(reply.send(self.reader.resume(&partitions))),
            IntakeCommand::Commit(offsets, reply) => drop(reply.send(self.commit(&offsets))),
            IntakeCommand::Seek(partition, offset, reply) => drop(reply.send(self.reader.seek(&partition, offset))),
            IntakeCommand::LetGo(partition) => self.reader.let_go(&partition),
            IntakeCommand::ReadAgain(partition, offset, ticket) => {
                let outcome = self.reader.read_again(&partition, offset);
                self.tell(IntakeEvent::ReadsAgain { partition, ticket, outcome })?;
            }
            IntakeCommand::AssignLater(partitions, reply) => {
                // One that cannot be paused is not read all the same.
                let stopped = self.reader.stop(&partitions).map(drop);
                let ours = self.reader.assigned().into_iter().filter(|ours| partitions.contains(ours));
                self.later.add(ours);
                drop(reply.send(stopped));
            }
            IntakeCommand::GroupMetadata(reply) => drop(reply.send(self.group_metadata())),
            IntakeCommand::Stop(reply) => {
                self.stopping = Some(reply);
                return Err(IntakeExit::Asked);
            }
        }
        Ok(())
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset, String)]) -> Result<()> {
        let ahead = self.reader.to_commit(offsets)?;
        if ahead.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(ahead.len());
        for (partition, offset, metadata) in &ahead {
            let mut element = list.add_partition(&partition.topic, partition.partition);
            element.set_offset(rdkafka::Offset::Offset(offset.0)).map_err(|e| failure::of("commit offsets", &e))?;
            element.set_metadata(metadata);
        }
        self.reader.consumer().commit(&list, CommitMode::Sync).map_err(|e| failure::of("commit offsets", &e))?;
        for element in list.elements() {
            element.error().map_err(|e| failure::of("commit offsets", &e))?;
        }
        self.reader.committed(&ahead);
        Ok(())
    }

    fn group_metadata(&self) -> Result<GroupMetadata> {
        // Taken between two looks at the generation: a membership that ended meanwhile would give metadata that fences nothing.
        let before = self.reader.generation();
        let metadata = self.reader.consumer().group_metadata();
        match metadata {
            Some(metadata) if before >= 0 && self.reader.generation() == before => Ok(GroupMetadata(Arc::new(metadata))),
            _ => Err(Error::refused(NOT_ASSIGNED, "read group metadata: not a member of the group now")),
        }
    }

    /// What Kafka knows of partitions that we were given; not of those without a leader that answers.
    fn describe(&self, partitions: &[TopicPartition]) -> Result<Vec<AssignedPartition>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let consumer = self.reader.consumer();
        let client = consumer.client();
        let committed =
            consumer.committed_offsets(list_of(partitions), COMMITTED_TIMEOUT).map_err(|e| failure::of(READ_COMMITTED, &e))?;
        let earliest = ends::earliest(client, partitions, ASK_TIMEOUT)?;
        let ends = ends::latest(client, partitions, ASK_TIMEOUT)?;
        let mut topics: Vec<String> = partitions.iter().map(|p| p.topic.to_string()).collect();
        topics.sort_unstable();
        topics.dedup();
        // A broker that tells no ids is not a reason to stop: then only offsets and epochs are compared.
        let ids = ends::ids_of(client, &topics, ASK_TIMEOUT).unwrap_or_else(|code| {
            tracing::debug!(%code, "read topic ids");
            Vec::new()
        });
        let mut described = Vec::with_capacity(partitions.len());
        for ((partition, earliest), (_, end)) in earliest.into_iter().zip(ends) {
            let (earliest, end) = match (earliest, end) {
                (Ok(earliest), Ok(end)) => (earliest, end),
                (Err(error), _) | (_, Err(error)) if error.is_unavailable() => {
                    tracing::debug!(%error, "describe assigned partition");
                    continue;
                }
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            let missing =
                || Error::unavailable(format!("describe {partition}: the broker answered without its committed offset"));
            let committed = committed.find_partition(&partition.topic, partition.partition).ok_or_else(missing)?;
            committed.error().map_err(|e| failure::of(READ_COMMITTED, &e))?;
            let committed = match committed.offset() {
                rdkafka::Offset::Offset(offset) => Some((Offset(offset), committed.metadata().to_owned())),
                _ => None,
            };
            described.push(AssignedPartition {
                committed,
                earliest: earliest.end,
                end: end.end,
                leader_epoch: end.leader_epoch,
                topic_id: ids.iter().find(|(topic, _)| **topic == *partition.topic).map(|(_, id)| id.clone()),
                partition,
            });
        }
        Ok(described)
    }

    fn tell(&mut self, event: IntakeEvent) -> Result<(), IntakeExit> {
        self.outbox.push_back(event);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), IntakeExit> {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => return Err(IntakeExit::ChannelClosed),
            }
        }
        Ok(())
    }
}
