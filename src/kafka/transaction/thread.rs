//! The thread behind a transactional publisher.
//!
//! Order matters: records are produced and acknowledged *before* the offsets are sent, and nothing is in flight when the
//! commit is asked for; otherwise each transaction waits 100 ms twice inside librdkafka.

use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::sync::oneshot;

use super::outcome::{PublishError, Published, Transaction, TransactionCommand};
use crate::config;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::kafka::bootstrap::Bootstrap;
use crate::kafka::client::{Purpose, TRANSACTION_TIMEOUT, client_config};
use crate::kafka::client_log;
use crate::kafka::failure;
use crate::kafka::native::WakingQueue;
use crate::kafka::publisher::enqueue;
use crate::kafka::record::NewRecord;

/// Longest wait for the coordinator to settle what the last owner left: a transaction that is being completed takes a moment.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a commit. By then the coordinator has timed the transaction out: waiting on would tell nothing new.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest sleep while records are on their way: acknowledgements wake the thread. rdkafka's own poll waits by asking for the
/// time over and over in its last millisecond, which was half of what a replay cost.
const QUIET: Duration = Duration::from_millis(50);

pub(super) struct TransactionThread {
    /// Before `producer`: freed before it.
    acknowledgements: WakingQueue,
    producer: BaseProducer<Deliveries>,
}

/// How far a transaction came when something went wrong.
enum TransactionFailure {
    /// Abort it, then tell this.
    Abort(PublishError),
    /// The producer is of no use any more.
    Close(PublishError),
}

impl TransactionThread {
    pub(super) fn new(kafka: &config::KafkaConfig, transactional_id: &str) -> Result<Self> {
        let config = client_config(kafka, Purpose::Transactional { id: transactional_id })?;
        let producer = BaseProducer::from_config_and_context(&config, Deliveries::new(&config))
            .map_err(|e| failure::of("create transactional producer", &e))?;
        let acknowledgements =
            WakingQueue::acknowledgements(&producer).ok_or_else(|| Error::bug("transactional producer without a queue"))?;
        Ok(Self { acknowledgements, producer })
    }

    pub(super) fn run(mut self, ready: oneshot::Sender<Result<()>>, commands: Receiver<TransactionCommand>) {
        self.acknowledgements.wakes(std::thread::current());
        let opened = self.producer.init_transactions(OPEN_TIMEOUT).map_err(|e| failure::of("open transactional producer", &e));
        let failed = opened.is_err();
        if ready.send(opened).is_err() || failed {
            return;
        }
        while let Ok((transaction, reply)) = commands.recv() {
            let outcome = self.publish(&transaction);
            if outcome.as_ref().is_err_and(PublishError::is_closed) {
                while let Ok((_, waiting)) = commands.try_recv() {
                    let _ = waiting.send(Err(PublishError::Unavailable("it was closed by an earlier failure".into())));
                }
                drop(commands);
                let _ = reply.send(outcome);
                return;
            }
            // The caller may have gone away; the outcome stands all the same.
            let _ = reply.send(outcome);
        }
    }

    fn publish(&self, transaction: &Transaction) -> Published {
        if transaction.records.is_empty() && transaction.last.is_empty() && transaction.offsets.is_empty() {
            return Ok(());
        }
        match self.try_publish(transaction) {
            Ok(()) => Ok(()),
            Err(TransactionFailure::Close(error)) => Err(error),
            Err(TransactionFailure::Abort(error)) => self.abort().and(Err(error)),
        }
    }

    fn try_publish(&self, transaction: &Transaction) -> Result<(), TransactionFailure> {
        failpoint::pass("replay.before_begin");
        self.producer.context().first_failure();
        self.producer.begin_transaction().map_err(|e| closing(&e))?;
        for records in [&transaction.records, &transaction.last] {
            self.produce(records)?;
        }
        failpoint::pass("replay.after_produce");
        self.send_offsets(transaction)?;
        failpoint::pass("replay.after_send_offsets");
        failpoint::pass("replay.before_commit");
        self.producer.commit_transaction(COMMIT_TIMEOUT).map_err(|e| failure_of_call(&e))?;
        failpoint::pass("replay.after_commit");
        Ok(())
    }

    fn produce(&self, records: &[NewRecord]) -> Result<(), TransactionFailure> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        for record in records {
            while let Err(error) = enqueue(record, (), |r| self.producer.send(r).map_err(|(e, _)| e)) {
                match error.rdkafka_error_code() {
                    Some(Code::QueueFull) if Instant::now() < deadline => self.poll(),
                    _ => return Err(refused(&error)),
                }
            }
        }
        while self.producer.in_flight_count() > 0 {
            self.poll();
            if Instant::now() >= deadline {
                return Err(TransactionFailure::Abort(PublishError::Aborted("records were not acknowledged in time".into())));
            }
        }
        self.producer.context().first_failure().map_or(Ok(()), |error| Err(refused(&error)))
    }

    /// Takes the acknowledgements that are there; waits a little where there is none.
    fn poll(&self) {
        if self.acknowledgements.is_empty() {
            std::thread::park_timeout(QUIET);
        }
        while !self.acknowledgements.is_empty() {
            self.producer.poll(Duration::ZERO);
        }
        self.producer.context().bootstrap.add_if_lost(self.producer.client());
    }

    fn send_offsets(&self, transaction: &Transaction) -> Result<(), TransactionFailure> {
        if transaction.offsets.is_empty() {
            return Ok(());
        }
        let Some(group) = &transaction.group else {
            return Err(TransactionFailure::Abort(PublishError::Aborted("offsets without group metadata".into())));
        };
        let mut list = TopicPartitionList::with_capacity(transaction.offsets.len());
        for (partition, offset) in &transaction.offsets {
            list.add_partition_offset(&partition.topic, partition.partition, rdkafka::Offset::Offset(offset.0))
                .map_err(|e| TransactionFailure::Abort(PublishError::Aborted(e.to_string())))?;
        }
        self.producer.send_offsets_to_transaction(&list, &group.0, TRANSACTION_TIMEOUT).map_err(|e| match failure_of_call(&e) {
            // Not yet at the commit, so the outcome is known once the abort is through.
            TransactionFailure::Close(PublishError::Unknown(reason)) if !is_fatal(&e) => {
                TransactionFailure::Abort(PublishError::Aborted(reason))
            }
            other => other,
        })
    }

    /// What was written never becomes visible once this is through. librdkafka purges what it has not sent and waits for the
    /// rest: purging that too would leave holes in the producer's sequence.
    fn abort(&self) -> Published {
        let aborted = self.producer.abort_transaction(TRANSACTION_TIMEOUT).map_err(|e| match closing(&e) {
            TransactionFailure::Abort(error) | TransactionFailure::Close(error) => error,
        });
        // Reports of purged records belong to this transaction, not to the next.
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            self.poll();
        }
        aborted
    }
}

/// An error of a call whose effect is not known, unless it says itself that an abort settles it.
fn failure_of_call(error: &KafkaError) -> TransactionFailure {
    match error {
        KafkaError::Transaction(e) if e.txn_requires_abort() => TransactionFailure::Abort(PublishError::Aborted(e.to_string())),
        other => closing(other),
    }
}

/// An error after which only a new producer helps.
fn closing(error: &KafkaError) -> TransactionFailure {
    let fenced = matches!(
        error.rdkafka_error_code().or(transaction_code(error)),
        Some(Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced | Code::InvalidProducerIdMapping)
    );
    let reason = error.to_string();
    TransactionFailure::Close(if fenced { PublishError::Fenced(reason) } else { PublishError::Unknown(reason) })
}

/// A record was not taken, or not acknowledged.
fn refused(error: &KafkaError) -> TransactionFailure {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge) => TransactionFailure::Abort(PublishError::TooLarge),
        Some(Code::Fatal | Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced) => closing(error),
        _ => TransactionFailure::Abort(PublishError::Aborted(error.to_string())),
    }
}

fn transaction_code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(e) => Some(e.code()),
        _ => None,
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(e) if e.is_fatal())
}

/// Remembers the first record that was not acknowledged.
struct Deliveries {
    failure: Mutex<Option<KafkaError>>,
    bootstrap: Bootstrap,
}

impl Deliveries {
    fn new(config: &ClientConfig) -> Self {
        Self { failure: Mutex::default(), bootstrap: Bootstrap::new(config) }
    }

    fn first_failure(&self) -> Option<KafkaError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }
    fn stats_raw(&self, _statistics: &[u8]) {}
    fn error(&self, error: KafkaError, reason: &str) {
        self.bootstrap.on_error(error.rdkafka_error_code());
        client_log::error_of(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}
