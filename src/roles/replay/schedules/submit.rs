//! The HTTP side of schedules: puts their requests on the topic, and tells how far they are.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::roles::replay::job_requests::JobRequests;
use crate::saga::ids;
use crate::saga::request::{LogRecord, ReplayRequest};

pub struct ScheduleSubmit {
    pub requests: JobRequests,
}

impl ScheduleSubmit {
    /// Puts a schedule on its way; gives its id. `Refused` `id_taken`: the request id was used with another body.
    pub async fn submit(&self, request: &ReplayRequest) -> Result<String> {
        let schedule_id = ids::request_uuid(&request.request_id).to_string();
        self.requests.begin(request, &schedule_id).await?;
        self.requests.shown(&schedule_id).await;
        Ok(schedule_id)
    }

    /// Asks something of a schedule. `Refused` `schedule_not_found`; `request_invalid`: it cannot be done now.
    pub async fn control(&self, schedule_id: &str, request: &ReplayRequest) -> Result<()> {
        self.known(schedule_id).await?;
        self.requests.ask(request, schedule_id).await
    }

    /// The newest record of a schedule. `Refused` `schedule_not_found`.
    pub async fn known(&self, schedule_id: &str) -> Result<LogRecord> {
        let found = self.requests.record(schedule_id).await?.filter(|record| record.schedule_progress.is_some());
        found.ok_or_else(|| Error::refused("schedule_not_found", "the replay log has no schedule of this id"))
    }

    /// Every schedule in memory, newest first.
    pub fn all(&self) -> Vec<Arc<LogRecord>> {
        self.requests.records.log.schedules()
    }
}
