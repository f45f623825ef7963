//! Joins the HTTP routes to batches: bodies in, how far they are out.

use async_trait::async_trait;
use uuid::Uuid;

use super::replay_service::{read_cursor, write_cursor};
use crate::api::batch_service::{BatchAnswer, BatchFilter, BatchPage, BatchService, BatchSubmitted, EffectCount, PlanAnswer};
use crate::cold::{self, batch_lists::Manifest};
use crate::error::{Error, Result};
use crate::replay_log;
use crate::roles::replay::batches::submit::{BatchSubmit, FIRST_ROWS};
use crate::saga::batch_counts::BatchStatus;
use crate::saga::batch_progress::BatchProgress;
use crate::saga::effects::Effect;
use crate::saga::request::{CommandName, LogRecord};
use crate::saga::time::Micros;
use crate::wire::request::batch_body::{control_request, read_body};

const MICROS_A_SECOND: f64 = 1e6;

pub(super) struct BatchApi {
    pub submit: BatchSubmit,
}

impl BatchApi {
    /// `Unavailable` until the view of the log is whole.
    fn is_whole(&self) -> Result<()> {
        if self.submit.planner.records.log.is_caught_up() {
            return Ok(());
        }
        Err(Error::unavailable("the replay log is not read to its end yet: ask again once /readyz says that replay-log holds"))
    }

    fn answer(&self, record: LogRecord) -> BatchAnswer {
        let log = &self.submit.planner.records.log;
        let none = BatchProgress::new(&record.replay_id, None, Default::default());
        let progress = record.batch_progress.as_deref().unwrap_or(&none);
        let total = progress.total();
        let counts = log.batch_counts(&record.replay_id).completed_to(total, progress.is_cancelled);
        let status = BatchStatus::of(progress, &counts);
        let now = (self.submit.now)();
        let eta = (status == BatchStatus::Running).then(|| eta(progress, counts.accepted, record.accepted_at, now)).flatten();
        BatchAnswer { status, counts, total, eta, record }
    }

    async fn page_of(&self, list: &Manifest, after: Option<&str>, limit: usize) -> Result<PlanAnswer> {
        let wrong = || Error::invalid("request_invalid", "after: not a cursor that an answer gave");
        let from: u64 = after.map_or(Ok(0), |text| text.parse().map_err(|_| wrong()))?;
        let rows = self.submit.rows(list, from, limit).await?;
        let end = from + rows.len() as u64;
        Ok(PlanAnswer {
            plan_id: list.list_id.clone(),
            digest: list.digest.clone(),
            rows,
            next: (end < list.total).then(|| end.to_string()),
            total: list.total,
            counts: list.verdicts.clone(),
            effects: list.effects.iter().map(effect_count).collect(),
        })
    }
}

fn effect_count(counted: &cold::batch_lists::EffectCount) -> EffectCount {
    let effect = Effect { step: counted.step.clone(), effect: counted.effect.clone() };
    EffectCount { effect, count: counted.count }
}

/// When as many sagas as wait will have had their turn: by the rate, else at the speed so far.
fn eta(progress: &BatchProgress, waiting: u64, since: Micros, now: Micros) -> Option<Micros> {
    let took = now.0.saturating_sub(since.0).max(1) as f64 / MICROS_A_SECOND;
    let done = progress.total().saturating_sub(waiting);
    let so_far = (done > 0).then(|| done as f64 / took);
    let per_second = progress.limits.rate_per_second.or(so_far)?;
    Some(now.saturating_add((waiting as f64 / per_second * MICROS_A_SECOND) as i64))
}

#[async_trait]
impl BatchService for BatchApi {
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<BatchSubmitted> {
        self.is_whole()?;
        let mut body = read_body(body)?;
        body.request_id = body.request_id.or_else(|| idempotency_key.map(str::to_owned));
        if body.dry_run {
            let list = self.submit.plan(&body).await?;
            return Ok(BatchSubmitted::Planned(self.page_of(&list, None, FIRST_ROWS).await?));
        }
        Ok(BatchSubmitted::OnItsWay { batch_id: self.submit.submit(&body).await? })
    }

    async fn plan(&self, plan_id: &str, after: Option<&str>, limit: usize) -> Result<PlanAnswer> {
        let list = self.submit.known_plan(plan_id, None).await?;
        self.page_of(&list, after, limit).await
    }

    async fn get(&self, batch_id: &str) -> Result<BatchAnswer> {
        self.is_whole()?;
        Ok(self.answer(self.submit.known(batch_id).await?))
    }

    async fn list(&self, filter: &BatchFilter, after: Option<&str>, limit: usize) -> Result<BatchPage> {
        self.is_whole()?;
        let after = after.map(read_cursor).transpose()?;
        let wanted = |record: &LogRecord| {
            filter.requested_by.as_ref().is_none_or(|by| *by == record.requested_by)
                && (filter.statuses.is_empty() || filter.statuses.contains(&self.answer(record.clone()).status))
        };
        let log = &self.submit.planner.records.log;
        let mut found: Vec<_> = log.batches(after.as_ref()).into_iter().filter(|record| wanted(record)).take(limit + 1).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| write_cursor(&replay_log::place(last)));
        Ok(BatchPage { batches: found.iter().map(|record| self.answer((**record).clone())).collect(), next })
    }

    async fn control(&self, batch_id: &str, command: CommandName, body: &[u8]) -> Result<BatchAnswer> {
        self.is_whole()?;
        let request = control_request(body, command, batch_id, &Uuid::now_v7().to_string())?;
        self.submit.control(batch_id, &request).await?;
        Ok(self.answer(self.submit.known(batch_id).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::batch_progress::{BatchLimits, ListRef};

    #[test]
    fn what_waits_ends_by_the_rate_else_at_the_speed_so_far() {
        let mut progress = BatchProgress::new("b", None, BatchLimits::default());
        progress.list = Some(ListRef { list_id: "b".into(), digest: String::new(), total: 100 });
        let (start, now) = (Micros(0), Micros(10_000_000));
        assert_eq!(eta(&progress, 50, start, now), Some(Micros(20_000_000)));
        assert_eq!(eta(&progress, 100, start, now), None, "no speed is known");
        progress.limits.rate_per_second = Some(25.0);
        assert_eq!(eta(&progress, 50, start, now), Some(Micros(12_000_000)));
    }
}
