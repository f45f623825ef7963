//! What folding sends besides: dead letters, and the ends of restored sagas to the requests topic. Sent beside the fold;
//! the offset is committed only after they are acknowledged.

use futures::FutureExt;
use tokio::task::JoinHandle;

use super::{Materialize, joined};
use crate::error::{Error, Result};
use crate::kafka::publisher::Publisher;
use crate::kafka::record::{NewRecord, Record};
use crate::roles::retry::until_available;
use crate::saga::ids;
use crate::saga::position::EntrySequence;
use crate::saga::position::{Offset, Position, TopicPartition};
use crate::saga::request::Outcome;
use crate::wire::dead_letter::dead_letter_headers;
use crate::wire::request;

/// Batches of records to publish that may wait for acknowledgement, per partition.
const MAX_OPEN: usize = 64;

/// What a partition has on its way since its last flush.
#[derive(Default)]
pub(super) struct Sends {
    open: Vec<JoinHandle<Result<()>>>,
    /// Of one that failed for good.
    failure: Option<Error>,
}

impl Sends {
    /// With so many on their way nothing more is folded.
    pub fn is_full(&self) -> bool {
        self.open.len() >= MAX_OPEN
    }

    /// Forgets what was acknowledged.
    pub fn settle(&mut self) {
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
pub(super) struct DeadLetter {
    pub record: Record,
    pub offset: Offset,
    pub stage: &'static str,
    pub code: &'static str,
    /// Names fields and positions, never values.
    pub message: String,
}

impl Materialize {
    pub(super) fn publish(&mut self, partition: &TopicPartition, dead: Vec<DeadLetter>, outcomes: Vec<Outcome>) -> Result<()> {
        if dead.is_empty() && outcomes.is_empty() {
            return Ok(());
        }
        let mut records: Vec<NewRecord> = Vec::with_capacity(dead.len() + outcomes.len());
        for letter in dead {
            tracing::debug!(
                topic = %partition.topic, partition = partition.partition, offset = letter.offset.0, code = letter.code,
                "record sent to the dead letters"
            );
            records.push(dead_record(&self.settings.dead_letters, partition, letter));
        }
        for outcome in outcomes {
            records.push(self.outcome_record(&outcome)?);
        }
        let sending = tokio::spawn(send(self.parts.publisher.clone(), records));
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.sends.settle();
            owned.sends.open.push(sending);
        }
        Ok(())
    }

    /// The internal request that tells the replay's owner how its restored saga ended.
    fn outcome_record(&self, outcome: &Outcome) -> Result<NewRecord> {
        let request_id = ids::outcome_request_id(&outcome.replay_id, EntrySequence(outcome.sequence)).to_string();
        let request = request::outcome(&request_id, outcome)?;
        Ok(NewRecord {
            topic: self.settings.requests.clone(),
            partition: None,
            key: Some(outcome.original_saga_id.as_str().as_bytes().to_vec().into()),
            value: Some(request::encode_request(&request, self.settings.request_schema)?.into()),
            headers: Vec::new(),
            timestamp: None,
        })
    }
}

async fn send(publisher: Publisher, records: Vec<NewRecord>) -> Result<()> {
    match until_available("publish dead letters and outcomes", || publisher.send(records.clone())).await {
        // Larger than the topic takes: an operator must raise its limit; until then nothing is committed past it.
        Err(Error::Refused { code, message }) => Err(Error::unavailable(format!("{code}: {message}"))),
        other => other,
    }
}

fn dead_record(topic: &str, from: &TopicPartition, letter: DeadLetter) -> NewRecord {
    let DeadLetter { record, offset, stage, code, message } = letter;
    let position = Position { topic: from.topic.clone(), partition: from.partition, offset };
    let headers = dead_letter_headers(&record.headers, &position, stage, code, &message);
    NewRecord { topic: topic.to_owned(), partition: None, key: record.key, value: record.value, headers, timestamp: None }
}
