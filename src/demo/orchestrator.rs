//! The orchestrator's Kafka side: publishes step events, reads restored sagas, resumes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::Value;

use super::book::Book;
use super::clock::Day;
use super::engine::Event;
use super::orders::Order;
use super::restored::Restored;
use crate::config;
use crate::kafka::ends::Ends;
use crate::kafka::publisher::Publisher;
use crate::kafka::record::NewRecord;
use crate::kafka::tail::{Tail, TailEvent, TailLimits};
use crate::saga::position::TopicPartition;

/// Records handed to the producer at once.
const CHUNK: usize = 2_000;
/// One in this many events is published twice, as a producer may that had no answer the first time.
const REPEATED: usize = 100;

#[derive(Clone)]
pub struct Orchestrator {
    publisher: Publisher,
    events: String,
    book: Arc<Mutex<Book>>,
}

impl Orchestrator {
    pub fn new(kafka: &config::KafkaConfig, events: &str, day: Day) -> anyhow::Result<Self> {
        let book = Arc::new(Mutex::new(Book::new(day)));
        Ok(Self { publisher: Publisher::new(kafka)?, events: events.to_owned(), book })
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the orders of the day; gives the number of records published.
    pub async fn trade(&self, orders: &[Order]) -> anyhow::Result<usize> {
        let events = self.book().run_orders(orders);
        let repeated = |(at, event)| std::iter::repeat_n(event, if at % REPEATED == 0 { 2 } else { 1 });
        let records: Vec<NewRecord> = events.iter().enumerate().flat_map(repeated).map(|event| self.record(event)).collect();
        for chunk in records.chunks(CHUNK) {
            self.publisher.send(chunk.to_vec()).await?;
        }
        Ok(records.len())
    }

    /// Resumes what comes on the topic of restored sagas, until it is dropped.
    pub async fn follow(self, kafka: config::KafkaConfig, topic: String) -> anyhow::Result<()> {
        let ends = Ends::new(&kafka)?;
        let partitions: Vec<_> = (0..ends.partitions_of(&topic).await?).map(|p| TopicPartition::new(topic.as_str(), p)).collect();
        let from = ends.earliest(&partitions).await?;
        let (_tail, mut read) = Tail::start(&kafka, "demo-orchestrator", &from, TailLimits::default())?;
        while let Some(event) = read.recv().await {
            match event {
                TailEvent::Records { batch } => {
                    let mut events = Vec::new();
                    for record in batch.iter().flat_map(|(partition, _)| &partition.records) {
                        let value = record.value.as_deref().context("a restored saga without a value")?;
                        let restored = Restored::read(value).context("read restored saga")?;
                        events.extend(self.book().resume(restored));
                    }
                    self.publisher.send(events.iter().map(|event| self.record(event)).collect()).await?;
                }
                TailEvent::ReachedEnd { .. } | TailEvent::ReadsAgain { .. } => {}
                TailEvent::OffsetsGone { partition, reason, .. } => bail!("read {partition}: {reason}"),
                TailEvent::Failed(error) => return Err(error.into()),
            }
        }
        bail!("the reader of restored sagas ended")
    }

    fn record(&self, event: &Event) -> NewRecord {
        record(&self.events, &event.saga_id, &event.body)
    }
}

fn record(topic: &str, key: &str, value: &Value) -> NewRecord {
    NewRecord {
        topic: topic.to_owned(),
        partition: None,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::from(value.to_string())),
        headers: Vec::new(),
        timestamp: None,
    }
}
