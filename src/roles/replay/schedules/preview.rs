//! What a schedule would have done in a window of time: answered from history, by the code that makes its requests and plans them.
//! Nothing is written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::policy_scan::PolicyScanner;
use crate::error::{Error, Result};
use crate::roles::replay::log_overlay::LogOverlay;
use crate::roles::replay::planner::{PlanTimes, ReplayPlanner};
use crate::saga::batch::{BatchOrder, Verdict};
use crate::saga::json::Json;
use crate::saga::position::{EntrySequence, SagaId};
use crate::saga::request::{Command, ReplayOrder, ReplayRequest};
use crate::saga::schedule::policy::{Policy, PolicyMatch};
use crate::saga::schedule::would::WouldReplay;
use crate::saga::schedule::{ScheduleOrder, ScheduledWork, Trigger};
use crate::saga::selector::SagaFilter;
use crate::saga::time::Micros;
use crate::wire::request::batch::MemberRequests;
use crate::wire::request::decode_json;
use crate::wire::request::schedule::{ScheduleAuthor, policy_request, run_of};

/// Requests that are looked at; with more the window is to be made smaller.
const MAX_ROWS: usize = 10_000;
/// Sagas of one page of a search.
const PAGE: usize = 1_000;
/// What is recorded in the window may have occurred this long before it, microseconds.
const LATE: i64 = 86_400_000_000;
/// How long what occurred before that is looked for.
const LOOK_FOR: Duration = Duration::from_secs(2);
/// No schedule has this id.
const AUTHOR: ScheduleAuthor<'_> =
    ScheduleAuthor { schedule_id: "00000000-0000-0000-0000-000000000000", requested_by: "preview", reason: "preview" };

/// A page of them.
#[derive(Debug, Clone, PartialEq)]
pub struct PreviewPage {
    pub rows: Vec<WouldReplay>,
    /// Of how many.
    pub total: usize,
    /// Where the next page begins.
    pub next: Option<usize>,
}

/// One that is not judged yet.
struct Would {
    saga_id: SagaId,
    sequence: Option<EntrySequence>,
    due: Micros,
    request: String,
}

pub struct SchedulePreview {
    pub planner: ReplayPlanner,
    pub scanner: PolicyScanner,
    pub now: fn() -> Micros,
}

impl SchedulePreview {
    /// The requests of since <= t < until, by due time, of a policy by the recorded time of the entries. Each is judged as it would be
    /// now. `Refused` `too_large`: there are too many.
    pub async fn page(
        &self,
        order: &ScheduleOrder,
        since: Micros,
        until: Micros,
        from: usize,
        limit: usize,
    ) -> Result<PreviewPage> {
        let mut would = match (&order.trigger, &order.work) {
            (Trigger::Policy(policy), ScheduledWork::Replay { members, .. }) => {
                self.of_policy(policy, members, since, until).await?
            }
            _ => self.of_times(order, since, until).await?,
        };
        would.sort_by(|a, b| (a.due, &a.saga_id, a.sequence).cmp(&(b.due, &b.saga_id, b.sequence)));
        let total = would.len();
        let end = from.saturating_add(limit).min(total);
        let mut rows = Vec::new();
        for would in would.get(from..end).unwrap_or_default() {
            rows.push(self.judge(would).await?);
        }
        Ok(PreviewPage { rows, total, next: (end < total).then_some(end) })
    }

    async fn of_policy(&self, policy: &Policy, members: &Json, since: Micros, until: Micros) -> Result<Vec<Would>> {
        let matches = if policy.on.stuck { self.scanner.stuck(policy).await? } else { self.failed(policy, since, until).await? };
        let mut would = Vec::new();
        for found in matches.iter().filter(|found| since <= found.recorded_time && found.recorded_time < until) {
            let Some(due) = policy.due(found) else { continue };
            let request = policy_request(members, AUTHOR, found, due, policy.on.stuck);
            let request = request.map_err(|e| Error::bug(format!("write request of a policy: {e}")))?.value;
            would.push(Would { saga_id: found.saga_id.clone(), sequence: Some(found.sequence), due, request });
            too_many(would.len())?;
        }
        Ok(would)
    }

    /// What is durable is told by the chains, by recorded time. What is not yet is found by a search, newest first.
    async fn failed(&self, policy: &Policy, since: Micros, until: Micros) -> Result<Vec<PolicyMatch>> {
        let before = since.saturating_add(-1);
        let mut scanned = Vec::new();
        let mut matches: HashMap<(SagaId, EntrySequence), PolicyMatch> = HashMap::new();
        loop {
            let scan = self.scanner.failed(policy, before, &scanned).await?;
            let is_done = scan.scanned == scanned;
            scanned = scan.scanned;
            self.keep(&mut matches, scan.matches, until)?;
            if is_done {
                break;
            }
        }
        for found in self.recent(policy, since).await? {
            self.keep(&mut matches, vec![found], until)?;
        }
        Ok(matches.into_values().collect())
    }

    fn keep(
        &self,
        matches: &mut HashMap<(SagaId, EntrySequence), PolicyMatch>,
        found: Vec<PolicyMatch>,
        until: Micros,
    ) -> Result<()> {
        let found = found.into_iter().filter(|found| found.recorded_time < until);
        matches.extend(found.map(|found| ((found.saga_id.clone(), found.sequence), found)));
        too_many(matches.len())
    }

    /// Of sagas with a last entry that may have been recorded in the window; what occurred long before it was recorded is looked for
    /// as long as that is quick.
    async fn recent(&self, policy: &Policy, since: Micros) -> Result<Vec<PolicyMatch>> {
        let history = &self.scanner.selection.history;
        let filter = SagaFilter { saga_name: policy.on.saga_name.clone(), ..SagaFilter::default() };
        let began = Instant::now();
        let (mut matches, mut after) = (Vec::new(), None);
        loop {
            let page = history.search(&filter, after.as_deref(), PAGE, &self.scanner.selection).await?;
            let oldest = page.sagas.last().map_or(Micros::MAX, |found| found.at);
            let sagas: Vec<SagaId> = page.sagas.into_iter().map(|found| found.saga_id).collect();
            matches.extend(self.scanner.matches_of(policy, &sagas, since.saturating_add(-1)).await?);
            after = page.next;
            let is_before = oldest < since.saturating_add(-LATE) && began.elapsed() > LOOK_FOR;
            if after.is_none() || is_before {
                return Ok(matches);
            }
            too_many(matches.len())?;
        }
    }

    async fn of_times(&self, order: &ScheduleOrder, since: Micros, until: Micros) -> Result<Vec<Would>> {
        let mut would = Vec::new();
        for due in due_times(order, since, until)? {
            let run = run_of(&order.work, AUTHOR, due).map_err(|e| Error::bug(format!("write request of a schedule: {e}")))?;
            let request = decode_json(run.value.as_bytes())?;
            match &request.command {
                Command::Replay(replay) => {
                    would.push(Would { saga_id: replay.saga_id.clone(), sequence: None, due, request: run.value.clone() });
                }
                Command::Batch(batch) => would.extend(self.of_batch(batch, &request, due).await?),
                _ => return Err(Error::bug("a schedule asks for another command than a replay or a batch")),
            }
            too_many(would.len())?;
        }
        Ok(would)
    }

    async fn of_batch(&self, batch: &BatchOrder, request: &ReplayRequest, due: Micros) -> Result<Vec<Would>> {
        let selection = &self.scanner.selection;
        let mut rows = selection.rows(&batch.source, batch.overrides.as_deref(), Micros::MIN).await?;
        let requests = MemberRequests {
            request_id: &request.request_id,
            requested_by: AUTHOR.requested_by,
            reason: AUTHOR.reason,
            batch_id: &request.request_id,
            accepted_at: due,
            template: &batch.template,
            needs_override: batch.overrides.is_some(),
            schedule: batch.schedule.as_ref(),
        };
        let mut would = Vec::new();
        loop {
            let page = rows.next(PAGE).await?;
            if page.is_empty() {
                return Ok(would);
            }
            for row in page {
                let request = requests.of(&row).map_err(|e| Error::bug(format!("write request of a batch: {e}")))?;
                would.push(Would { saga_id: row.saga_id, sequence: None, due, request });
            }
            too_many(would.len())?;
        }
    }

    async fn judge(&self, would: &Would) -> Result<WouldReplay> {
        let request = decode_json(would.request.as_bytes())?;
        let Command::Replay(order) = &request.command else {
            return Err(Error::bug("a schedule's replay is another command"));
        };
        let verdict = self.verdict(&request, order, would.due).await?;
        Ok(WouldReplay { saga_id: would.saga_id.clone(), sequence: would.sequence, due: would.due, verdict })
    }

    async fn verdict(&self, request: &ReplayRequest, order: &ReplayOrder, due: Micros) -> Result<Verdict> {
        let mut known = self.planner.histories_of(std::slice::from_ref(&order.saga_id)).await;
        let known = known.pop().ok_or_else(|| Error::bug("a history was asked for and none came"))??;
        let times = PlanTimes { decided_at: (self.now)(), restored_at: due };
        Ok(match self.planner.plan(request, order, &known, LogOverlay::default(), None, times).await? {
            Ok((plan, _)) => Verdict::Replay { new_saga_id: plan.restored.saga_id },
            Err(refusal) => Verdict::Refuse { code: refusal.code.to_owned(), message: refusal.message },
        })
    }
}

fn due_times(order: &ScheduleOrder, since: Micros, until: Micros) -> Result<Vec<Micros>> {
    let mut times = Vec::new();
    match &order.trigger {
        Trigger::At(at) => times.extend(Some(*at).filter(|at| since <= *at && *at < until)),
        Trigger::Cron(cron) => {
            let mut at = since.saturating_add(-1);
            while let Some(next) = cron.next_after(at).filter(|next| *next < until) {
                times.push(next);
                at = next;
                too_many(times.len())?;
            }
        }
        Trigger::Policy(_) => {}
    }
    Ok(times)
}

fn too_many(rows: usize) -> Result<()> {
    if rows > MAX_ROWS { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Error {
    let why = format!("since, until: the window has more than {MAX_ROWS} requests: make it smaller");
    Error::refused("too_large", why)
}
