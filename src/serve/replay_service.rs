//! Joins the HTTP routes to the replay role: requests in, log records out.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::api::replay_service::{AcceptedCancel, ReplayPage, ReplayService, SubmitAnswer};
use crate::cpu;
use crate::error::{Error, Result};
use crate::history::answer::Child;
use crate::history::replay_lookup::ReplayLookup;
use crate::replay_log::{self, Place};
use crate::roles::replay::planner::ReplayPlanner;
use crate::roles::replay::submit::{self, Submit};
use crate::saga::effects::DeclaredEffects;
use crate::saga::position::SagaId;
use crate::saga::replay_filter::ReplayFilter;
use crate::saga::request::{CommandName, LogRecord};
use crate::saga::selector::ReplayStanding;
use crate::saga::time::Micros;
use crate::wire::request::decode_body;

pub(super) struct ReplayApi {
    pub submit: Submit,
    pub effects: Arc<DeclaredEffects>,
}

impl ReplayApi {
    /// `Unavailable` until the view of the log is whole: an answer from less would miss replays that there are.
    fn planner(&self) -> Result<&ReplayPlanner> {
        let planner = &self.submit.planner;
        if planner.records.log.is_caught_up() {
            Ok(planner)
        } else {
            Err(Error::unavailable(
                "the replay log is not read to its end yet: ask again once /readyz says that replay-log holds",
            ))
        }
    }
}

#[async_trait]
impl ReplayService for ReplayApi {
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<SubmitAnswer> {
        self.planner()?;
        let made = Uuid::now_v7().to_string();
        let request = decode_body(body, idempotency_key.unwrap_or(&made))?;
        Ok(match self.submit.replay(&request, request.request_id != made).await? {
            submit::SubmitOutcome::Accepted { request_id, replay_id, new_saga_id, request_sha256 } => {
                SubmitAnswer::Accepted { request_id, replay_id, new_saga_id, request_sha256 }
            }
            submit::SubmitOutcome::DryRun(plan) => {
                let (diff, would_refuse) = (cpu::long(|| plan.diff()).await, plan.would_refuse);
                let effects = self.effects.of_plan(&plan);
                SubmitAnswer::Planned { plan: Box::new(plan.restored), diff, runs: plan.runs, would_refuse, effects }
            }
        })
    }

    async fn cancel(&self, replay_id: &str, requested_by: &str, reason: &str) -> Result<AcceptedCancel> {
        self.planner()?;
        let request_id = Uuid::now_v7().to_string();
        let cancelling = self.submit.cancel(replay_id, &request_id, requested_by, reason).await?;
        Ok(AcceptedCancel { request_id: cancelling.request_id, replay_id: cancelling.replay_id })
    }

    async fn undo(&self, replay_id: &str, requested_by: &str, reason: &str) -> Result<AcceptedCancel> {
        self.planner()?;
        let request_id = Uuid::now_v7().to_string();
        let undo = self.submit.undo(replay_id, &request_id, requested_by, reason).await?;
        Ok(AcceptedCancel { request_id: undo.request_id, replay_id: undo.replay_id })
    }

    async fn get(&self, replay_id: &str) -> Result<Option<LogRecord>> {
        self.planner()?;
        Ok(self.submit.record(replay_id).await?.map(|record| (*record).clone()))
    }

    async fn list(&self, filter: &ReplayFilter, after: Option<&str>, limit: usize) -> Result<ReplayPage> {
        let after = after.map(read_cursor).transpose()?;
        let mut found = self.planner()?.records.log.find(filter, after.as_ref(), limit + 1);
        if let Some(saga) = filter.saga_id.as_ref().filter(|_| found.len() <= limit) {
            let dropped = self.planner()?.records.dropped_of(saga).await?.into_iter();
            let wanted =
                |r: &Arc<LogRecord>| filter.matches(r) && after.as_ref().is_none_or(|after| replay_log::place(r) < *after);
            found.extend(dropped.filter(wanted));
            newest_first(&mut found);
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| write_cursor(&replay_log::place(last)));
        Ok(ReplayPage { records: found.iter().map(|record| (**record).clone()).collect(), next })
    }

    async fn children(&self, saga: &SagaId) -> Result<Vec<Child>> {
        let mut records = self.planner()?.records.log.of_saga(saga);
        records.extend(self.planner()?.records.dropped_of(saga).await?);
        newest_first(&mut records);
        let made = records.iter().filter(|record| {
            record.original_saga_id.as_ref() == Some(saga)
                && record.published_at.is_some()
                && record.command == CommandName::Replay
        });
        let child = |record: &Arc<LogRecord>| Some(Child { saga_id: record.new_saga_id.clone()?, replay: record.clone() });
        Ok(made.filter_map(child).collect())
    }
}

#[async_trait]
impl ReplayLookup for ReplayApi {
    async fn standing(&self, saga: &SagaId) -> Result<ReplayStanding> {
        self.planner()?.records.standing(saga).await
    }

    async fn is_repaired(&self, saga: &SagaId) -> Result<bool> {
        let planner = self.planner()?;
        planner.records.is_repaired(&planner.history, saga).await
    }
}

/// Each replay once.
fn newest_first(records: &mut Vec<Arc<LogRecord>>) {
    records.sort_by_key(|record| std::cmp::Reverse(replay_log::place(record)));
    records.dedup_by(|one, other| one.replay_id == other.replay_id);
}

pub(super) fn write_cursor(place: &Place) -> String {
    format!("{}.{}", place.accepted_at.0, place.replay_id)
}

pub(super) fn read_cursor(text: &str) -> Result<Place> {
    let wrong = || Error::invalid("request_invalid", "after: not a cursor that an answer gave");
    let (at, replay_id) = text.split_once('.').ok_or_else(wrong)?;
    Ok(Place { accepted_at: Micros(at.parse().map_err(|_| wrong())?), replay_id: replay_id.into() })
}

#[cfg(test)]
#[path = "replay_service_tests.rs"]
mod tests;
