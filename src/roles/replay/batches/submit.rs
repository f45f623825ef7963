//! The HTTP side of batches: plans them, puts their lists into the archive and their requests on the topic, and tells how far they are.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::freeze::Freezer;
use crate::cold::batch_lists::{Manifest, ROWS};
use crate::error::{Error, Result};
use crate::roles::replay::catch_up::{CatchUpBarrier, EndOffsets};
use crate::roles::replay::job_requests::{ID_TAKEN, JobRequests};
use crate::roles::replay::log_overlay::LogOverlay;
use crate::roles::replay::planner::{PlanTimes, ReplayPlanner};
use crate::saga::batch::{BatchOrder, BatchRow, BatchSource, Verdict};
use crate::saga::effects::{DeclaredEffects, Effect};
use crate::saga::ids;
use crate::saga::position::SagaId;
use crate::saga::request::{Command, LogRecord, ReplayRequest};
use crate::saga::time::Micros;
use crate::wire::request::batch::MemberRequests;
use crate::wire::request::batch_body::{BatchBody, batch_request, frozen_batch};
use crate::wire::request::decode_json;

/// Sagas that are planned together: as many histories are in memory at once.
const PLANNED_TOGETHER: usize = 128;
/// How long a plan waits for its sagas' partitions.
const FRESH_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a batch above which its list goes into the archive, and only its name on the topic.
const MAX_INLINE: usize = 64 << 10;

pub struct BatchSubmit {
    pub planner: ReplayPlanner,
    pub catch_up: CatchUpBarrier,
    pub freezer: Freezer,
    pub requests: JobRequests,
    /// How long a plan may be run.
    pub keep_plans: Duration,
    pub effects: Arc<DeclaredEffects>,
    pub now: fn() -> Micros,
}

impl BatchSubmit {
    /// What the batch would do, saga by saga, frozen under the id that it will run as. `Refused` `behind`: not caught up in time.
    pub async fn plan(&self, body: &BatchBody) -> Result<Manifest> {
        let order = &body.order;
        if let BatchSource::Frozen { list_id, digest } = &order.source {
            return self.known_plan(list_id, digest.as_deref()).await;
        }
        let request_id = body.request_id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
        let plan_id = ids::request_uuid(&request_id).to_string();
        let now = (self.now)();
        let requests = MemberRequests {
            // The batch runs under the plan's id, so its replays have the ids that the plan says.
            request_id: &plan_id,
            requested_by: &body.requested_by,
            reason: &body.reason,
            batch_id: &plan_id,
            accepted_at: now,
            template: &order.template,
            needs_override: order.overrides.is_some(),
            schedule: None,
        };
        let mut list = self.freezer.lists.write(self.freezer.new_list(&plan_id, order, now, &body.requested_by)?);
        let ends = self.catch_up.fetch_end_offsets().await?;
        let mut rows = self.freezer.selection.rows(&order.source, order.overrides.as_deref(), now).await?;
        loop {
            let page = rows.next(PLANNED_TOGETHER).await?;
            if page.is_empty() {
                break;
            }
            for some in page.chunks(PLANNED_TOGETHER) {
                for (row, effects) in self.plan_rows(some, &requests, &ends, now).await? {
                    list.add(&row).await?;
                    list.count_effects(&effects);
                }
            }
        }
        let (manifest, is_same) = list.finish().await?;
        // Asked again, some sagas may stand otherwise: the plan that was made first counts.
        if is_same || manifest.template == order.template.as_str() {
            Ok(manifest)
        } else {
            Err(Error::refused("id_taken", ID_TAKEN))
        }
    }

    async fn plan_rows(
        &self,
        rows: &[BatchRow],
        requests: &MemberRequests<'_>,
        ends: &EndOffsets,
        now: Micros,
    ) -> Result<Vec<(BatchRow, Vec<Effect>)>> {
        let sagas: Vec<SagaId> = rows.iter().map(|row| row.saga_id.clone()).collect();
        let behind = || Error::refused("behind", "a saga's partition is not caught up yet");
        let fresh = self.catch_up.wait(&sagas, ends, Instant::now() + FRESH_WITHIN).await?;
        if fresh.contains(&false) {
            return Err(behind());
        }
        let mut planned = Vec::with_capacity(rows.len());
        for (row, known) in rows.iter().zip(self.planner.histories_of(&sagas).await) {
            let known = known?;
            if !self.catch_up.covers(&row.saga_id, ends, &known) {
                return Err(behind());
            }
            let text = requests.of(row).map_err(|e| Error::bug(format!("write request of a batch: {e}")))?;
            let request = decode_json(text.as_bytes())?;
            let Command::Replay(order) = &request.command else {
                return Err(Error::bug("a batch asks for another command than a replay"));
            };
            let restored_at = now.max(order.not_before.unwrap_or(Micros::MIN));
            let times = PlanTimes { decided_at: now, restored_at };
            let (verdict, effects) = match self.planner.plan(&request, order, &known, LogOverlay::default(), None, times).await? {
                Ok((plan, _)) => {
                    let effects = self.effects.of_plan(&plan);
                    (Verdict::Replay { new_saga_id: plan.restored.saga_id }, effects)
                }
                Err(refusal) => (Verdict::Refuse { code: refusal.code.to_owned(), message: refusal.message }, Vec::new()),
            };
            planned.push((BatchRow { verdict: Some(verdict), ..row.clone() }, effects));
        }
        Ok(planned)
    }

    /// A plan that may still be run. `Refused` `plan_not_found`, `plan_expired`.
    pub async fn known_plan(&self, plan_id: &str, digest: Option<&str>) -> Result<Manifest> {
        let found = self.freezer.lists.manifest(plan_id).await?;
        let manifest = found.ok_or_else(|| Error::refused("plan_not_found", "there is no plan of this id"))?;
        if let Some(expected) = digest.filter(|digest| *digest != manifest.digest) {
            let found = &manifest.digest;
            return Err(Error::refused("request_invalid", format!("digest: the plan has {found}, expected {expected}")));
        }
        let age = (self.now)().0.saturating_sub(manifest.created_at);
        let is_over = u128::try_from(age).is_ok_and(|age| age > self.keep_plans.as_micros());
        if is_over && self.requests.record(plan_id).await?.is_none() {
            return Err(Error::refused("plan_expired", "the plan is older than replay.keep_plans: plan again"));
        }
        Ok(manifest)
    }

    /// Rows of a list from this one on, at most `limit`.
    pub async fn rows(&self, list: &Manifest, from: u64, limit: usize) -> Result<Vec<BatchRow>> {
        let mut rows = Vec::new();
        while rows.len() < limit {
            let more = self.freezer.lists.rows(list, from + rows.len() as u64).await?;
            if more.is_empty() {
                break;
            }
            rows.extend(more);
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Puts a batch on its way; gives its id. `Refused` `id_taken`: the request id was used with another body.
    pub async fn submit(&self, body: &BatchBody) -> Result<String> {
        let asked = (body.requested_by.as_str(), body.reason.as_str());
        let request = match &body.order.source {
            BatchSource::Frozen { list_id, digest } => {
                let plan = self.known_plan(list_id, digest.as_deref()).await?;
                let request_id = body.request_id.as_deref().unwrap_or(&plan.list_id);
                if ids::request_uuid(request_id).to_string() != plan.list_id {
                    let why = "request_id: a plan runs under its own id, with which its new saga ids were planned; leave it out";
                    return Err(Error::invalid("request_invalid", why));
                }
                frozen_batch(request_id, &plan.list_ref(), &body.order, asked)?
            }
            source => {
                let request_id = body.request_id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
                let batch = body.batch.as_ref().ok_or_else(|| Error::bug("submit a batch without its members"))?;
                let names_sagas = matches!(source, BatchSource::Sagas(_));
                if names_sagas || batch.len() > MAX_INLINE {
                    let list = self.freeze(&request_id, &body.order, &body.requested_by).await?;
                    frozen_batch(&request_id, &list.list_ref(), &body.order, asked)?
                } else {
                    batch_request(&request_id, batch, asked)?
                }
            }
        };
        let batch_id = ids::request_uuid(&request.request_id).to_string();
        self.requests.begin(&request, &batch_id).await?;
        Ok(batch_id)
    }

    async fn freeze(&self, request_id: &str, order: &BatchOrder, requested_by: &str) -> Result<Manifest> {
        let list_id = ids::request_uuid(request_id).to_string();
        let (manifest, is_same) = self.freezer.freeze(&list_id, order, (self.now)(), requested_by).await?;
        if is_same { Ok(manifest) } else { Err(Error::refused("id_taken", ID_TAKEN)) }
    }

    /// Asks something of a batch, and waits for a moment to see what became of it. `Refused` `batch_not_found`; `request_invalid`: it
    /// cannot be done now.
    pub async fn control(&self, batch_id: &str, request: &ReplayRequest) -> Result<()> {
        self.known(batch_id).await?;
        self.requests.ask(request, batch_id).await
    }

    /// The newest record of a batch. `Refused` `batch_not_found`.
    pub async fn known(&self, batch_id: &str) -> Result<LogRecord> {
        let found = self.requests.record(batch_id).await?.filter(|record| record.batch_progress.is_some());
        found.ok_or_else(|| Error::refused("batch_not_found", "the replay log has no batch of this id"))
    }
}

/// Rows of the first answer of a plan.
pub const FIRST_ROWS: usize = ROWS;
