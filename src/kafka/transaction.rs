//! Writing records and the offsets they answer in one Kafka transaction (DESIGN 6.4, 6.5).
//!
//! One thread per publisher, since librdkafka's transaction calls block. It decides nothing: what could not be done is
//! told as a [`PublishError`] that says what is visible and what the caller does next.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::intake::GroupMetadata;
use super::record::NewRecord;
use super::transaction_thread::TransactionThread;
use crate::config;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, TopicPartition};

/// What becomes visible at once, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub records: Vec<NewRecord>,
    /// Written once `records` are acknowledged.
    pub last: Vec<NewRecord>,
    /// Next offsets to read. Needs `group`.
    pub offsets: Vec<(TopicPartition, Offset)>,
    /// The membership under which what the offsets pass was read; it fences a member that lost its partitions.
    pub group: Option<GroupMetadata>,
}

/// Why a transaction is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing is visible. Rewind to the committed offsets and try again; the publisher can go on.
    #[error("transaction aborted: {0}")]
    Aborted(String),
    /// A newer producer has this transactional id. Nothing of this transaction becomes visible unless its commit was already
    /// under way: open again and re-read. This publisher is closed.
    #[error("transactional producer fenced: {0}")]
    Fenced(String),
    /// It may be visible or not: open again (which settles it) and re-read. This publisher is closed.
    #[error("outcome of transaction unknown: {0}")]
    Unknown(String),
    /// A record is larger than the producer or the topic takes. Nothing is visible; the publisher can go on, though the next
    /// transaction may be `Aborted` once (librdkafka mends the hole in its sequence by an abort).
    #[error("record too large for its topic")]
    TooLarge,
    /// Nothing was begun: the publisher is closed or its queue is full.
    #[error("transactional producer unavailable: {0}")]
    Unavailable(String),
}

impl PublishError {
    /// Whether the publisher is closed and must be opened again.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Fenced(_) | Self::Unknown(_) | Self::Unavailable(_))
    }
}

pub(super) type Published = Result<(), PublishError>;
pub(super) type Command = (Transaction, oneshot::Sender<Published>);

/// Transactions that wait for their turn.
const MAX_WAITING_TRANSACTIONS: usize = 4;

/// The handle; when it is dropped an open transaction is left to time out or to the next `open` of the same id.
#[derive(Debug)]
pub struct TransactionalPublisher {
    commands: SyncSender<Command>,
}

impl TransactionalPublisher {
    /// Takes the transactional id over: what its last owner left open is aborted or, if its commit had begun, completed;
    /// the last owner is fenced.
    pub async fn open(kafka: &config::Kafka, transactional_id: &str) -> Result<Self> {
        let (commands, received): (_, Receiver<Command>) = sync_channel(MAX_WAITING_TRANSACTIONS);
        let (ready, opened) = oneshot::channel();
        let thread = TransactionThread::new(kafka, transactional_id)?;
        std::thread::Builder::new()
            .name("transactions".into())
            .spawn(move || thread.run(ready, received))
            .map_err(|e| Error::unavailable(format!("start transaction thread: {e}")))?;
        opened.await.unwrap_or_else(|_| Err(Error::unavailable("open transactional producer: its thread ended")))?;
        Ok(Self { commands })
    }

    /// Commits everything in `transaction`, or says why not. An empty one is nothing to do.
    pub async fn publish(&self, transaction: Transaction) -> Result<(), PublishError> {
        let (reply, outcome) = oneshot::channel();
        self.commands.try_send((transaction, reply)).map_err(|e| {
            PublishError::Unavailable(match e {
                TrySendError::Full(_) => "too many transactions wait".into(),
                TrySendError::Disconnected(_) => "it was closed by an earlier failure".into(),
            })
        })?;
        outcome.await.unwrap_or_else(|_| Err(PublishError::Unknown("the producer's thread ended".into())))
    }
}
