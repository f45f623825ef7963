//! Feeds the view of the replay log from its topic: every record that the topic still has, then each new one.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::serve::START_WITHIN;
use crate::config::Kafka;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::tail::{Tail, TailEvent, TailLimits};
use crate::roles::replay_log::ReplayLog;
use crate::saga::position::TopicPartition;
use crate::wire::avro::Schemas;
use crate::wire::log::decode_log;
use crate::wire::payload::NotDecoded;

use crate::kafka::registry::SchemaRegistry;
use crate::roles::retry::until_available;
use crate::roles::schema::learn;

/// Starts reading. The task ends with the reason why it cannot go on.
pub(super) async fn follow(
    kafka: &Kafka,
    topic: &str,
    partitions: i32,
    view: Arc<ReplayLog>,
    schemas: Arc<Schemas>,
    registry: Option<Arc<SchemaRegistry>>,
) -> Result<JoinHandle<Result<()>>> {
    let ends = Ends::new(kafka)?;
    let all: Vec<TopicPartition> = (0..partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
    let range = || async { Ok((ends.earliest(&all).await?, ends.ends(&all).await?)) };
    // Topics that were just made have no leaders for a moment.
    let (from, to) = tokio::time::timeout(START_WITHIN, until_available("ask for the replay log's ends", range))
        .await
        .map_err(|_| Error::unavailable("ask for the replay log's ends: no answer in time"))??;
    for (partition, earliest) in &from {
        view.apply(partition.partition, Vec::new(), *earliest);
        if earliest.0 > 0 {
            view.topic_has_dropped();
        }
    }
    view.whole_from(to.into_iter().map(|(partition, end)| (partition.partition, end)));
    let (tail, mut events) = Tail::start(kafka, "resaga-replay-log", &from, TailLimits::default())?;
    Ok(tokio::spawn(async move {
        let _tail = tail;
        while let Some(event) = events.recv().await {
            match event {
                TailEvent::Records { batch, held } => {
                    for records in batch {
                        let mut read = Vec::with_capacity(records.records.len());
                        for record in records.records {
                            loop {
                                match decode_log(record.value.as_deref(), &record.headers, &schemas) {
                                    Ok(found) => read.push(found),
                                    Err(NotDecoded::NeedSchema(schema)) => {
                                        if learn(registry.as_deref(), schema, &schemas).await? {
                                            continue;
                                        }
                                        tracing::warn!(offset = record.offset.0, "replay log record has an unknown schema");
                                    }
                                    Err(NotDecoded::DeadLetter { code, message }) => {
                                        tracing::warn!(
                                            offset = record.offset.0,
                                            code,
                                            message,
                                            "replay log record not understood"
                                        );
                                    }
                                }
                                break;
                            }
                        }
                        view.apply(records.partition.partition, read, records.position);
                    }
                    drop(held);
                }
                TailEvent::ReachedEnd { partition, position } => view.apply(partition.partition, Vec::new(), position),
                TailEvent::OffsetsGone { partition, position, reason } => {
                    return Err(Error::unavailable(format!("read replay log {partition} at {position}: {reason}")));
                }
                TailEvent::Failed(error) => return Err(error.context("read replay log")),
            }
        }
        Err(Error::unavailable("read replay log: its reader ended"))
    }))
}
