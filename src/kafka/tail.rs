//! Reading whole partitions in no group, such as the replay log for its view in memory. Commits nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::client::{Purpose, client_config};
use super::memory_budget::{MemoryBudget, MemoryPermit};
use super::native::ConsumerEvent;
use super::reader::{PartitionReader, StartAt};
use super::record::PartitionRecords;
use crate::config;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, TopicPartition};

#[derive(Debug)]
pub enum TailEvent {
    /// As [`IntakeEvent::Records`](super::intake::IntakeEvent::Records).
    Records { batch: Vec<(PartitionRecords, MemoryPermit)> },
    /// The position is at the last stable offset; comes again whenever that moved and was reached again.
    ReachedEnd { partition: TopicPartition, position: Offset },
    /// The offset to read is not in the log; the partition is not read on.
    OffsetsGone { partition: TopicPartition, position: Offset, reason: String },
    /// What comes of the partition from here on is what [`Tail::read_again`] with this ticket asked for, unless that failed.
    ReadsAgain { partition: TopicPartition, ticket: u64, outcome: Result<()> },
    /// The tail has stopped. The last event.
    Failed(Error),
}

/// Bounds of a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLimits {
    pub batch_records: usize,
    pub batch_bytes: usize,
    /// Bytes of all records that were handed out and whose [`MemoryPermit`] is not dropped yet.
    pub held_bytes: u64,
}

impl Default for TailLimits {
    fn default() -> Self {
        Self { batch_records: 2_000, batch_bytes: 2 << 20, held_bytes: 8 << 20 }
    }
}

enum TailCommand {
    LetGo(TopicPartition),
    ReadAgain(TopicPartition, Offset, u64),
}

/// The handle; dropping it ends the thread.
#[derive(Debug)]
pub struct Tail {
    commands: SyncSender<TailCommand>,
    stop: Arc<AtomicBool>,
    thread: Thread,
}

/// Longest sleep: whatever there is to do wakes the thread.
const QUIET: Duration = Duration::from_millis(500);
/// Between two looks for room in the channel.
const FULL: Duration = Duration::from_millis(10);
/// Most events that wait for the reader.
const MAX_WAITING_EVENTS: usize = 64;
/// Most calls that wait for the thread at once.
const MAX_WAITING_COMMANDS: usize = 64;

impl Tail {
    /// Reads `read_committed` from the offsets given. `name` shows in logs and client lists; no group of that name is joined.
    pub fn start(
        kafka: &config::KafkaConfig,
        name: &str,
        from: &[(TopicPartition, Offset)],
        limits: TailLimits,
    ) -> Result<(Self, mpsc::Receiver<TailEvent>)> {
        let mut reader = PartitionReader::new(&client_config(kafka, Purpose::Tail { group: name })?)?;
        let placed: Vec<_> = from.iter().map(|(p, offset)| (p.clone(), StartAt::Offset(*offset), *offset)).collect();
        reader.assign(&placed)?;
        let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (commands, received) = sync_channel(MAX_WAITING_COMMANDS);
        let thread = std::thread::Builder::new()
            .name(format!("tail {name}"))
            .spawn(move || TailThread::new(reader, limits, (received, events), stopped).run())
            .map_err(|e| Error::unavailable(format!("start tail thread: {e}")))?;
        Ok((Self { commands, stop, thread: thread.thread().clone() }, receiver))
    }

    /// Stops reading a partition; what was read of it and is on its way still comes. Waits for nothing.
    pub fn let_go(&self, partition: TopicPartition) -> Result<()> {
        self.ask(TailCommand::LetGo(partition))
    }

    /// Reads a partition that was let go of on from `offset`. Waits for nothing: [`TailEvent::ReadsAgain`] comes behind what was
    /// on its way, and before the first record.
    pub fn read_again(&self, partition: TopicPartition, offset: Offset, ticket: u64) -> Result<()> {
        self.ask(TailCommand::ReadAgain(partition, offset, ticket))
    }

    fn ask(&self, command: TailCommand) -> Result<()> {
        self.commands.try_send(command).map_err(|e| Error::unavailable(format!("ask tail: {e}")))?;
        self.thread.unpark();
        Ok(())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

struct TailThread {
    reader: PartitionReader,
    limits: TailLimits,
    budget: MemoryBudget,
    commands: Receiver<TailCommand>,
    events: mpsc::Sender<TailEvent>,
    stop: Arc<AtomicBool>,
}

impl TailThread {
    /// On the thread itself: what there is to read wakes it.
    fn new(
        mut reader: PartitionReader,
        limits: TailLimits,
        (commands, events): (Receiver<TailCommand>, mpsc::Sender<TailEvent>),
        stop: Arc<AtomicBool>,
    ) -> Self {
        let here = std::thread::current();
        reader.wakes(&here);
        Self { reader, limits, budget: MemoryBudget::new(limits.held_bytes, here), commands, events, stop }
    }

    fn run(mut self) {
        while !self.stop.load(Ordering::Acquire) {
            if let Some(error) = self.group_events() {
                self.tell(TailEvent::Failed(error));
                return;
            }
            self.run_commands();
            if !self.budget.has_room() {
                std::thread::park_timeout(QUIET);
                continue;
            }
            let read = self.reader.read(self.limits.batch_records, self.limits.batch_bytes);
            if !read.batch.is_empty() {
                let batch = self.budget.hold_each(read.batch);
                self.tell(TailEvent::Records { batch });
            }
            for (partition, position) in read.ends {
                self.tell(TailEvent::ReachedEnd { partition, position });
            }
            for (partition, position, reason) in read.gone {
                self.tell(TailEvent::OffsetsGone { partition, position, reason });
            }
            if let Some(error) = read.failed {
                self.tell(TailEvent::Failed(error));
                return;
            }
            if read.exhausted {
                std::thread::park_timeout(QUIET);
            }
        }
    }

    fn run_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                TailCommand::LetGo(partition) => self.reader.let_go(&partition),
                TailCommand::ReadAgain(partition, offset, ticket) => {
                    let outcome = self.reader.read_again(&partition, offset);
                    self.tell(TailEvent::ReadsAgain { partition, ticket, outcome });
                }
            }
        }
    }

    fn group_events(&self) -> Option<Error> {
        while let Some(event) = self.reader.poll_group_event() {
            match event.read() {
                ConsumerEvent::Log { level, facility, message } => super::client_log::log(level, &facility, &message),
                ConsumerEvent::Error { code, fatal: is_fatal, reason, .. } => {
                    if let Some(error) = self.reader.on_error(code, is_fatal, &reason) {
                        return Some(error);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Waits for room in the channel, as long as somebody listens.
    fn tell(&self, event: TailEvent) {
        let mut event = event;
        let mut parked = false;
        while !self.stop.load(Ordering::Acquire) {
            match self.events.try_send(event) {
                Ok(()) => {
                    // What woke the thread meanwhile may have been a record: look again before the next sleep.
                    if parked {
                        std::thread::current().unpark();
                    }
                    return;
                }
                Err(TrySendError::Full(back)) => event = back,
                Err(TrySendError::Closed(_)) => return self.stop.store(true, Ordering::Release),
            }
            std::thread::park_timeout(FULL);
            parked = true;
        }
    }
}
