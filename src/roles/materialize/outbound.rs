//! What folding sends besides: dead letters, and the ends of restored sagas to the requests topic. Sent beside the fold;
//! the offset is committed only after they are acknowledged.

use std::sync::Arc;

use futures::FutureExt;
use tokio::task::JoinHandle;

use super::background::joined;
use crate::error::{Error, Result};
use crate::kafka::publisher::Publisher;
use crate::kafka::record::{NewRecord, Record};
use crate::retry::Backoff;
use crate::saga::ids;
use crate::saga::position::{EntrySequence, Offset, Position, TopicPartition};
use crate::saga::request::Outcome;
use crate::telemetry::Metrics;
use crate::wire::avro::SchemaId;
use crate::wire::dead_letter::{CUT_TO, DeadLetterRecord, cut, dead_letter_headers, size};
use crate::wire::request;

/// Batches of records to publish that may wait for acknowledgement, per partition.
const MAX_OPEN_SENDS: usize = 64;

/// What a partition has on its way since its last flush.
#[derive(Default)]
pub struct UnacknowledgedSends {
    open: Vec<JoinHandle<Result<()>>>,
    /// Of one that failed for good.
    failure: Option<Error>,
}

impl UnacknowledgedSends {
    /// Then nothing more is folded.
    pub fn is_full(&self) -> bool {
        self.open.len() >= MAX_OPEN_SENDS
    }

    /// Forgets what was acknowledged.
    pub fn prune(&mut self) {
        let failure = &mut self.failure;
        self.open.retain_mut(|send| match send.now_or_never() {
            None => true,
            Some(done) => {
                if let Err(error) = joined(done).flatten() {
                    failure.get_or_insert(error);
                }
                false
            }
        });
    }

    /// When all are.
    pub async fn acknowledged(self) -> Result<()> {
        for send in self.open {
            joined(send.await)??;
        }
        self.failure.map_or(Ok(()), Err)
    }
}

/// A record that becomes no entry.
pub struct DeadLetter {
    pub record: Record,
    pub offset: Offset,
    pub stage: &'static str,
    pub code: &'static str,
    /// Names fields and positions, never values.
    pub message: String,
}

impl DeadLetter {
    pub fn of(record: &Record, stage: &'static str, code: &'static str, message: String) -> Self {
        Self { record: record.clone(), offset: record.offset, stage, code, message }
    }
}

/// Where the records go.
pub struct OutboundTopics {
    pub dead_letters: String,
    pub requests: String,
    /// Of the requests topic; `None`: JSON.
    pub request_schema: Option<SchemaId>,
}

pub struct Outbound {
    publisher: Publisher,
    metrics: Arc<Metrics>,
    targets: OutboundTopics,
}

impl Outbound {
    pub fn new(publisher: Publisher, metrics: Arc<Metrics>, targets: OutboundTopics) -> Self {
        Self { publisher, metrics, targets }
    }

    /// Sends what folding a batch of this partition gave; `sends` has it until it is acknowledged.
    pub fn send(
        &self,
        sends: &mut UnacknowledgedSends,
        partition: &TopicPartition,
        dead: Vec<DeadLetter>,
        outcomes: Vec<Outcome>,
    ) -> Result<()> {
        if dead.is_empty() && outcomes.is_empty() {
            return Ok(());
        }
        let mut records: Vec<NewRecord> = Vec::with_capacity(dead.len() + outcomes.len());
        for letter in dead {
            self.metrics.dead_letters.with_label_values(&[letter.stage, letter.code]).inc();
            tracing::debug!(
                topic = %partition.topic, partition = partition.partition, offset = letter.offset.0, code = letter.code,
                "record sent to the dead letters"
            );
            records.push(dead_record(&self.targets.dead_letters, partition, letter));
        }
        for outcome in outcomes {
            records.push(self.outcome_record(&outcome)?);
        }
        let sending = tokio::spawn(send(self.publisher.clone(), self.metrics.clone(), records));
        sends.prune();
        sends.open.push(sending);
        Ok(())
    }

    /// The internal request that tells the replay's owner how its restored saga ended.
    fn outcome_record(&self, outcome: &Outcome) -> Result<NewRecord> {
        let request_id = ids::outcome_request_id(&outcome.replay_id, EntrySequence(outcome.sequence)).to_string();
        let request = request::outcome(&request_id, outcome)?;
        Ok(NewRecord {
            topic: self.targets.requests.clone(),
            partition: None,
            key: Some(outcome.original_saga_id.as_str().as_bytes().to_vec().into()),
            value: Some(request::encode_request(&request, self.targets.request_schema)?.into()),
            headers: Vec::new(),
            timestamp: None,
        })
    }
}

/// Until every record is acknowledged: nothing is committed past one that is not, whatever the reason.
async fn send(publisher: Publisher, metrics: Arc<Metrics>, mut records: Vec<NewRecord>) -> Result<()> {
    let mut backoff = Backoff::new("publish dead letters and outcomes");
    while !records.is_empty() {
        let results = publisher.send_each(&records).await;
        let (mut again, mut reason) = (Vec::new(), String::new());
        for (record, result) in std::mem::take(&mut records).into_iter().zip(results) {
            match result {
                Ok(()) => {}
                // What is packed together is refused together.
                Err(Error::Refused { .. }) => send_alone(&publisher, &metrics, record).await?,
                Err(error @ Error::Bug(_)) => return Err(error),
                Err(error) => {
                    reason = error.to_string();
                    again.push(record);
                }
            }
        }
        records = again;
        if !records.is_empty() {
            backoff.pause(&reason).await;
        }
    }
    backoff.succeeded();
    Ok(())
}

/// Whole, and if that is refused for its size cut, more each time.
async fn send_alone(publisher: &Publisher, metrics: &Metrics, whole: NewRecord) -> Result<()> {
    let mut backoff = Backoff::new("publish dead letter");
    let full = size(whole.key.as_deref(), whole.value.as_deref(), &whole.headers);
    let mut sizes = CUT_TO.into_iter().filter(|most| *most < full);
    let mut record = whole.clone();
    loop {
        let result = publisher.send_each(std::slice::from_ref(&record)).await.into_iter().collect::<Result<()>>();
        match result {
            Ok(()) => {
                if record != whole {
                    metrics.dead_letters_cut.inc();
                }
                return Ok(());
            }
            Err(error @ Error::Bug(_)) => return Err(error),
            Err(Error::Refused { message, .. }) => match sizes.next() {
                Some(most) => record = cut_record(whole.clone(), most).await?,
                // Only an operator can help, by the topic's max.message.bytes.
                None => backoff.pause(&message).await,
            },
            Err(error) => backoff.pause(&error.to_string()).await,
        }
    }
}

/// Beside the fold: the hash of a large value takes its time.
async fn cut_record(record: NewRecord, most: usize) -> Result<NewRecord> {
    joined(
        tokio::task::spawn_blocking(move || {
            let NewRecord { key, value, headers, .. } = record;
            let DeadLetterRecord { key, value, headers } = cut(&DeadLetterRecord { key, value, headers }, most);
            NewRecord { key, value, headers, ..record }
        })
        .await,
    )
}

fn dead_record(topic: &str, from: &TopicPartition, letter: DeadLetter) -> NewRecord {
    let DeadLetter { record, offset, stage, code, message } = letter;
    let position = Position { topic: from.topic.clone(), partition: from.partition, offset };
    let headers = dead_letter_headers(&record.headers, &position, stage, code, &message);
    NewRecord { topic: topic.to_owned(), partition: None, key: record.key, value: record.value, headers, timestamp: None }
}
