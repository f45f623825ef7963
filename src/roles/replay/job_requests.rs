//! The HTTP side of what goes on for long, batches and schedules: puts their requests on the topic, and looks at what became of them.

use std::time::Duration;

use super::log_overlay::LogOverlay;
use super::replay_records::ReplayRecords;
use crate::error::{Error, Result};
use crate::kafka::publisher::Publisher;
use crate::kafka::record::NewRecord;
use crate::saga::ids;
use crate::saga::request::{LogRecord, ReplayRequest, ReplayStatus};
use crate::wire::avro::SchemaId;
use crate::wire::request::encode_request;

/// How long an answer waits for the log to show what became of a command.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
pub const ID_TAKEN: &str = "request_id: used before with another body";

#[derive(Clone)]
pub struct JobRequests {
    pub records: ReplayRecords,
    pub publisher: Publisher,
    pub topic: String,
    /// Of the requests topic; `None`: JSON.
    pub schema: Option<SchemaId>,
}

impl JobRequests {
    /// The newest record of this id.
    pub async fn record(&self, id: &str) -> Result<Option<LogRecord>> {
        let found = self.records.find(id, None, LogOverlay::default()).await?;
        Ok(found.map(|record| (*record).clone()))
    }

    /// Publishes what begins something of this id, unless it was before. `Refused` `id_taken`: with another body.
    pub async fn begin(&self, request: &ReplayRequest, id: &str) -> Result<()> {
        match self.record(id).await? {
            Some(known) if known.request_sha256 == request.sha256 => Ok(()),
            Some(_) => Err(Error::refused("id_taken", ID_TAKEN)),
            None => self.publish(request, id).await,
        }
    }

    /// Asks something of what has this id, and waits for a moment to see what became of that. `Refused` `request_invalid`: it cannot be
    /// done now.
    pub async fn ask(&self, request: &ReplayRequest, id: &str) -> Result<()> {
        self.publish(request, id).await?;
        let own = ids::request_uuid(&request.request_id).to_string();
        let log = &self.records.log;
        match tokio::time::timeout(SHOWN_WITHIN, log.shown(|| log.get(&own))).await {
            Ok(record) if record.status == ReplayStatus::Refused => {
                Err(Error::refused("request_invalid", record.message.clone().unwrap_or_default()))
            }
            // What is not shown yet is on its way.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for a moment until the log shows it.
    pub async fn shown(&self, id: &str) {
        let log = &self.records.log;
        drop(tokio::time::timeout(SHOWN_WITHIN, log.shown(|| log.get(id))).await);
    }

    async fn publish(&self, request: &ReplayRequest, id: &str) -> Result<()> {
        let record = NewRecord {
            topic: self.topic.clone(),
            partition: None,
            key: Some(id.as_bytes().to_vec().into()),
            value: Some(encode_request(request, self.schema)?.into()),
            headers: Vec::new(),
            timestamp: None,
        };
        self.publisher.send(vec![record]).await
    }
}
