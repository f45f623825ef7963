//! Writing records and the offsets they answer in one Kafka transaction: all become visible, or none (docs/ARCHITECTURE.md, Guarantees).
//!
//! One thread per publisher, since librdkafka's transaction calls block. It decides nothing: what could not be done is
//! told as a [`PublishError`] that says what is visible and what the caller does next.

mod outcome;
mod thread;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use crate::config;
use crate::error::{Error, Result};
use outcome::TransactionCommand;
pub use outcome::{PublishError, Transaction};
use thread::TransactionThread;

/// Transactions that wait for their turn.
const MAX_WAITING_TRANSACTIONS: usize = 4;

/// The handle; when it is dropped an open transaction is left to time out or to the next `open` of the same id.
#[derive(Debug)]
pub struct TransactionalPublisher {
    commands: SyncSender<TransactionCommand>,
}

impl TransactionalPublisher {
    /// Takes the transactional id over: what its last owner left open is aborted or, if its commit had begun, completed;
    /// the last owner is fenced.
    pub async fn open(kafka: &config::KafkaConfig, transactional_id: &str) -> Result<Self> {
        let (commands, received): (_, Receiver<TransactionCommand>) = sync_channel(MAX_WAITING_TRANSACTIONS);
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
