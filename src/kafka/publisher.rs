//! Writing records outside transactions (dead letters, outcomes): idempotent, each acknowledged by all replicas.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::bootstrap::Bootstrap;
use super::client::{Purpose, client_config};
use super::client_log;
use super::failure;
use super::native::WakingQueue;
use super::record::NewRecord;
use crate::config;
use crate::error::{Error, Result};

/// A plain producer. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    producer: Arc<BaseProducer<Acknowledged>>,
    /// The thread that takes acknowledgements ends when the last of these is gone.
    _wanted: Arc<()>,
}

/// Longest wait for room in librdkafka's queue; the records in it time out by themselves (`message.timeout.ms`).
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest sleep of the thread that takes acknowledgements, which wake it.
const QUIET: Duration = Duration::from_millis(500);
/// Between two looks for room.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

impl Publisher {
    pub fn new(kafka: &config::KafkaConfig) -> Result<Self> {
        Self::of(&client_config(kafka, Purpose::Producer)?)
    }

    /// For those whose answer does not wait longer: what is not acknowledged by then fails, and is not written later.
    pub fn within(kafka: &config::KafkaConfig, limit: Duration) -> Result<Self> {
        let mut config = client_config(kafka, Purpose::Producer)?;
        config.set("message.timeout.ms", limit.as_millis().to_string());
        Self::of(&config)
    }

    fn of(config: &ClientConfig) -> Result<Self> {
        let producer = BaseProducer::from_config_and_context(config, Acknowledged(Bootstrap::new(config)))
            .map_err(|e| failure::of("create producer", &e))?;
        let producer = Arc::new(producer);
        let queue = WakingQueue::acknowledgements(&producer).ok_or_else(|| Error::bug("producer without a queue"))?;
        let wanted = Arc::new(());
        let (theirs, is_wanted) = (Arc::clone(&producer), Arc::downgrade(&wanted));
        std::thread::Builder::new()
            .name("acknowledgements".into())
            .spawn(move || acknowledge(&theirs, queue, &is_wanted))
            .map_err(|e| Error::unavailable(format!("start producer thread: {e}")))?;
        Ok(Self { producer, _wanted: wanted })
    }

    /// Resolves when every record is acknowledged, or with the first failure (then some may have been written).
    /// `Refused` `too_large`: a record is larger than the topic takes.
    pub async fn send(&self, records: Vec<NewRecord>) -> Result<()> {
        self.send_each(&records).await.into_iter().collect()
    }

    /// What became of each record, in their order. `Refused` `too_large`: it, or one that was packed together with it, is
    /// larger than the producer or the topic takes.
    pub async fn send_each(&self, records: &[NewRecord]) -> Vec<Result<()>> {
        if records.is_empty() {
            return Vec::new();
        }
        let (done, outcome) = oneshot::channel();
        let pending = Arc::new(DeliveryWait {
            left: AtomicUsize::new(records.len()),
            failures: Mutex::default(),
            done: Mutex::new(Some(done)),
        });
        let deadline = Instant::now() + QUEUE_TIMEOUT;
        for (at, record) in records.iter().enumerate() {
            let sent = || Box::new(Sent { pending: Arc::clone(&pending), at });
            while let Err(error) = enqueue(record, sent(), |r| self.producer.send(r).map_err(|(e, _)| e)) {
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) if Instant::now() < deadline => tokio::time::sleep(QUEUE_PAUSE).await,
                    _ => {
                        pending.acknowledge(at, Some(error));
                        break;
                    }
                }
            }
        }
        let Ok(failures) = outcome.await else {
            return records.iter().map(|_| Err(Error::unavailable("write records: producer stopped"))).collect();
        };
        let mut results: Vec<Result<()>> = records.iter().map(|_| Ok(())).collect();
        for (at, error) in failures {
            results[at] = Err(failure::of(&format!("write to {}", records[at].topic), &error));
        }
        results
    }
}

/// Takes acknowledgements for as long as there is a publisher. rdkafka's own thread asks for the time over and over in the
/// last millisecond of each of its waits, which was most of what an idle process cost.
fn acknowledge(producer: &BaseProducer<Acknowledged>, mut queue: WakingQueue, wanted: &Weak<()>) {
    queue.wakes(std::thread::current());
    while wanted.strong_count() > 0 {
        while !queue.is_empty() {
            producer.poll(Duration::ZERO);
        }
        producer.context().0.add_if_lost(producer.client());
        std::thread::park_timeout(QUIET);
    }
}

/// Hands a record to a producer, which copies it.
pub(super) fn enqueue<O: rdkafka::IntoOpaque>(
    record: &NewRecord,
    opaque: O,
    send: impl FnOnce(BaseRecord<'_, [u8], [u8], O>) -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    let mut out = BaseRecord::with_opaque_to(&record.topic, opaque);
    out.partition = record.partition;
    out.key = record.key.as_deref();
    out.payload = record.value.as_deref();
    out.timestamp = record.timestamp.map(|at| at.0.div_euclid(1_000));
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: value.as_deref() });
        }
        out = out.headers(headers);
    }
    send(out)
}

/// Which of a call's records failed.
type Failures = Vec<(usize, KafkaError)>;

/// A call of `send_each` that waits for its last acknowledgement.
struct DeliveryWait {
    left: AtomicUsize,
    failures: Mutex<Failures>,
    done: Mutex<Option<oneshot::Sender<Failures>>>,
}

/// One record of it.
struct Sent {
    pending: Arc<DeliveryWait>,
    at: usize,
}

impl DeliveryWait {
    fn acknowledge(&self, at: usize, failure: Option<KafkaError>) {
        if let Some(failure) = failure {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push((at, failure));
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // A caller that no longer waits is no error.
            let _ = done.send(std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner)));
        }
    }
}

struct Acknowledged(Bootstrap);

impl ClientContext for Acknowledged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }
    fn stats_raw(&self, _statistics: &[u8]) {}
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.on_error(error.rdkafka_error_code());
        client_log::error_of(&error, reason);
    }
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        sent.pending.acknowledge(sent.at, result.as_ref().err().map(|(error, _)| error.clone()));
    }
}
