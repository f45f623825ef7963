//! Joins the HTTP routes to schedules: bodies in, how far they are out.

use async_trait::async_trait;
use uuid::Uuid;

use crate::api::schedule_service::{ScheduleAnswer, ScheduleService, WouldPage};
use crate::error::{Error, Result};
use crate::roles::replay::schedules::preview::SchedulePreview;
use crate::roles::replay::schedules::submit::ScheduleSubmit;
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};
use crate::wire::request::schedule::read_definition;
use crate::wire::request::schedule_body::{control_request, preview, schedule_request};

pub(super) struct ScheduleApi {
    pub submit: ScheduleSubmit,
    pub preview: SchedulePreview,
}

impl ScheduleApi {
    /// `Unavailable` until the view of the log is whole.
    fn is_whole(&self) -> Result<()> {
        if self.submit.requests.records.log.is_caught_up() {
            return Ok(());
        }
        Err(Error::unavailable("the replay log is not read to its end yet: ask again once /readyz says that replay-log holds"))
    }

    fn answer(&self, record: LogRecord) -> ScheduleAnswer {
        let progress = record.schedule_progress.as_deref().filter(|_| record.status == ReplayStatus::Accepted);
        let next_due = progress.and_then(|progress| read_definition(&progress.definition).ok()?.next_due(progress));
        let counts = self.submit.requests.records.log.schedule_tally(&record.replay_id).counts;
        ScheduleAnswer { record, next_due, counts }
    }
}

#[async_trait]
impl ScheduleService for ScheduleApi {
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<String> {
        self.is_whole()?;
        let made = Uuid::now_v7().to_string();
        let request = schedule_request(body, idempotency_key.unwrap_or(&made))?;
        self.submit.submit(&request).await
    }

    async fn get(&self, schedule_id: &str) -> Result<ScheduleAnswer> {
        self.is_whole()?;
        Ok(self.answer(self.submit.known(schedule_id).await?))
    }

    async fn list(&self) -> Result<Vec<ScheduleAnswer>> {
        self.is_whole()?;
        Ok(self.submit.all().iter().map(|record| self.answer((**record).clone())).collect())
    }

    async fn control(&self, schedule_id: &str, command: CommandName, body: &[u8]) -> Result<ScheduleAnswer> {
        self.is_whole()?;
        let request = control_request(body, command, schedule_id, &Uuid::now_v7().to_string())?;
        self.submit.control(schedule_id, &request).await?;
        Ok(self.answer(self.submit.known(schedule_id).await?))
    }

    async fn preview(&self, body: &[u8], after: Option<&str>, limit: usize) -> Result<WouldPage> {
        self.is_whole()?;
        let body = preview(body)?;
        let wrong = || Error::invalid("request_invalid", "after: not a cursor that an answer gave");
        let from = after.map_or(Ok(0), |text| text.parse().map_err(|_| wrong()))?;
        let page = self.preview.page(&body.order, body.since, body.until, from, limit).await?;
        Ok(WouldPage { would: page.rows, total: page.total, next: page.next.map(|next| next.to_string()) })
    }
}
