//! The HTTP side of replays: planned at once, published to the requests topic, restored by the process that owns the partition.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::catch_up::CatchUpBarrier;
use super::keyed_locks::KeyedLocks;
use super::log_overlay::{LogOverlay, UnappliedRecords};
use super::log_record::{accepted, new_saga_id, record_of};
use super::planner::{PlanTimes, ReplayPlanner, SagaHistory, plan_undo_of};
use crate::error::{Error, Result};
use crate::kafka::publisher::Publisher;
use crate::kafka::record::NewRecord;
use crate::saga::ids;
use crate::saga::plan::{Plan, REFUSALS};
use crate::saga::position::{Position, SagaId};
use crate::saga::request::{Command, CommandName, LogRecord, Refusal, ReplayOrder, ReplayRequest, ReplayStatus};
use crate::saga::time::Micros;
use crate::saga::undo::undo_target;
use crate::wire::avro::SchemaId;
use crate::wire::request;

/// How long an answer waits for the saga's partition, or for brokers that do not answer.
const FRESH_WITHIN: Duration = Duration::from_secs(10);
/// How long it then waits for its request to be written.
pub const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// On top of that: a saga that is behind is told so, not cut off.
const FRESH_GRACE: Duration = Duration::from_millis(500);
/// How long an answer waits for the log to show whose body counts.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
const NOT_FOUND: &str = "no replay with this id in the log; a request that stays in its topic for want of room \
     (replay.max_parked_requests) is not there yet: put a CANCEL record with its saga_id on the requests topic";
const ID_TAKEN: &str = "request_id: used before with another body";
/// Between two looks at what history has.
const LOOK: Duration = Duration::from_millis(100);
/// Requests remembered until the log shows them.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

pub struct Submit {
    pub planner: ReplayPlanner,
    pub catch_up: CatchUpBarrier,
    pub publisher: Publisher,
    pub topic: String,
    /// Of the requests topic; `None`: JSON.
    pub schema: Option<SchemaId>,
    pub now: fn() -> Micros,
    /// By replay id, as the log will have them: a request counts from the moment it is published.
    published: Mutex<LruCache<String, Arc<LogRecord>>>,
    posting: KeyedLocks,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum SubmitOutcome {
    /// On its way.
    Accepted { request_id: String, replay_id: String, new_saga_id: SagaId, request_sha256: String },
    /// A dry run: what would be published.
    DryRun(Box<Plan>),
}

/// A cancel on its way: its own ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelling {
    pub request_id: String,
    pub replay_id: String,
}

impl Submit {
    pub fn new(
        planner: ReplayPlanner,
        catch_up: CatchUpBarrier,
        publisher: Publisher,
        (topic, schema): (String, Option<SchemaId>),
        now: fn() -> Micros,
    ) -> Self {
        Self {
            planner,
            catch_up,
            publisher,
            topic,
            schema,
            now,
            published: Mutex::new(LruCache::new(REMEMBERED)),
            posting: KeyedLocks::default(),
        }
    }

    /// Plans a replay and, if it can go, publishes the request. `Refused` with the refusal's code; `Refused`
    /// `behind`: not caught up in time; `id_taken`: the request id was used with another body. `may_be_elsewhere`: others may
    /// know the request id, and post it to another process at this moment.
    pub async fn replay(&self, request: &ReplayRequest, may_be_elsewhere: bool) -> Result<SubmitOutcome> {
        let order = match &request.command {
            Command::Replay(order) => order,
            Command::Invalid { message, .. } => return Err(Error::invalid("request_invalid", message.clone())),
            _ => return Err(Error::invalid("request_invalid", "command: only REPLAY can be posted here")),
        };
        let replay_id = ids::replay_id(&request.request_id, &order.saga_id).to_string();
        let on_its_way = SubmitOutcome::Accepted {
            request_id: request.request_id.clone(),
            replay_id: replay_id.clone(),
            new_saga_id: new_saga_id(&request.request_id, order),
            request_sha256: request.sha256.clone(),
        };
        // Two posts of one id here go one after the other: the second finds what the first published.
        let _lock = self.posting.lock(&replay_id).await;
        if let Some(known) = self.seen(&replay_id, &order.saga_id).await?.filter(|known| !known.dry_run) {
            if known.request_sha256 != request.sha256 {
                return Err(Error::refused("id_taken", ID_TAKEN));
            }
            return if known.status == ReplayStatus::Refused { Err(refusal_of(&known)) } else { Ok(on_its_way) };
        }
        let plan = tokio::time::timeout(FRESH_WITHIN + FRESH_GRACE, self.plan(request, order));
        let plan =
            plan.await.map_err(|_| Error::unavailable("plan the replay: no answer from the brokers or stores in time"))??;
        self.publish(request, &order.saga_id).await?;
        if order.dry_run {
            return Ok(SubmitOutcome::DryRun(Box::new(plan)));
        }
        let not_recorded_yet = Position::new(self.topic.as_str(), -1, -1);
        let record = accepted(record_of(request, not_recorded_yet, (self.now)()), request);
        self.published.lock().unwrap_or_else(PoisonError::into_inner).put(replay_id.clone(), Arc::new(record));
        if may_be_elsewhere {
            self.is_the_one_that_counts(&replay_id, request).await?;
        }
        Ok(on_its_way)
    }

    /// Another process may have published the same id with another body a moment before: the first of them in the topic
    /// counts, and the log names it by its hash. Where the log does not show one soon, that is for the asker to look at.
    async fn is_the_one_that_counts(&self, replay_id: &str, request: &ReplayRequest) -> Result<()> {
        let shown = || self.planner.records.log.get(replay_id).filter(|record| !record.dry_run);
        let Ok(record) = tokio::time::timeout(SHOWN_WITHIN, self.planner.records.log.shown(shown)).await else { return Ok(()) };
        if record.request_sha256 != request.sha256 {
            return Err(Error::refused("id_taken", ID_TAKEN));
        }
        Ok(())
    }

    /// Cancels a waiting replay. `Refused` `replay_not_found`; `request_invalid`: it does not wait.
    pub async fn cancel(&self, replay_id: &str, request_id: &str, requested_by: &str, reason: &str) -> Result<Cancelling> {
        // One that the log does not show yet can be cancelled too: the CANCEL goes to its partition, behind it.
        let Some(record) = self.record(replay_id).await? else {
            return Err(Error::refused("replay_not_found", NOT_FOUND));
        };
        let saga = record.original_saga_id.as_ref().filter(|_| record.status == ReplayStatus::Accepted);
        let Some(saga) = saga else {
            return Err(Error::refused("request_invalid", format!("the replay does not wait: it is {}", record.status.as_str())));
        };
        let request = request::about_replay(CommandName::Cancel, request_id, (saga, replay_id), (requested_by, reason))?;
        self.publish(&request, saga).await?;
        Ok(Cancelling { request_id: request_id.to_owned(), replay_id: ids::command_replay_id(request_id, replay_id).to_string() })
    }

    /// Asks the restored saga of a replay to compensate what it did. `Refused` `replay_not_found`; `request_invalid`: it cannot be undone;
    /// `saga_running`; `behind`.
    pub async fn undo(&self, replay_id: &str, request_id: &str, requested_by: &str, reason: &str) -> Result<Cancelling> {
        let Some(record) = self.record(replay_id).await? else {
            return Err(Error::refused("replay_not_found", NOT_FOUND));
        };
        let refused = |refusal: Refusal| Error::refused(refusal.code, refusal.message);
        let target = undo_target(Some(&record), record.original_saga_id.as_ref()).map_err(refused)?;
        let original = record.original_saga_id.as_ref().ok_or_else(|| Error::bug("undo a replay of no saga"))?;
        let request = request::about_replay(CommandName::Undo, request_id, (original, replay_id), (requested_by, reason))?;
        let own = ids::command_replay_id(request_id, replay_id).to_string();
        let history = tokio::time::timeout(FRESH_WITHIN + FRESH_GRACE, self.fresh_history(target));
        let history =
            history.await.map_err(|_| Error::unavailable("plan the undo: no answer from the brokers or stores in time"))??;
        plan_undo_of(&request, &own, &record, &history, (self.now)()).map_err(refused)?;
        self.publish(&request, original).await?;
        Ok(Cancelling { request_id: request_id.to_owned(), replay_id: own })
    }

    /// The newest record of a replay. Of one that was published here and that the log does not show yet it says `accepted`,
    /// with this process's clock and no offset.
    pub async fn record(&self, replay_id: &str) -> Result<Option<Arc<LogRecord>>> {
        self.planner.records.find(replay_id, None, LogOverlay::of(&self.not_in_the_log())).await
    }

    /// The same of a replay of this saga. Waits for what history must have to tell.
    async fn seen(&self, replay_id: &str, saga: &SagaId) -> Result<Option<Arc<LogRecord>>> {
        let homes = self.planner.records.homes_of(saga);
        let deadline = Instant::now() + FRESH_WITHIN;
        while !self.planner.records.is_known(&homes).await? {
            if Instant::now() >= deadline {
                return Err(Error::refused("behind", "what the replay log had before is not in history yet"));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.planner.records.find(replay_id, Some(&homes), LogOverlay::of(&self.not_in_the_log())).await
    }

    /// What was published here and is not in the log yet. What is, need not be remembered.
    fn not_in_the_log(&self) -> UnappliedRecords {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let in_log = |id: &str| self.planner.records.log.get(id).is_some_and(|record| !record.dry_run);
        let done: Vec<String> = published.iter().map(|(id, _)| id.clone()).filter(|id| in_log(id)).collect();
        for id in &done {
            published.pop(id);
        }
        let mut pending = UnappliedRecords::default();
        published.iter().for_each(|(_, record)| pending.insert(record.clone()));
        pending
    }

    async fn plan(&self, request: &ReplayRequest, order: &ReplayOrder) -> Result<Plan> {
        let known = self.fresh_history(&order.saga_id).await?;
        let now = (self.now)();
        let times = PlanTimes { decided_at: now, restored_at: now.max(order.not_before.unwrap_or(Micros::MIN)) };
        let unapplied = self.not_in_the_log();
        let planned = self.planner.plan(request, order, &known, LogOverlay::of(&unapplied), None, times).await?;
        planned.map(|(plan, _)| plan).map_err(|refusal| Error::refused(refusal.code, refusal.message))
    }

    /// With all that is recorded by now.
    async fn fresh_history(&self, saga: &SagaId) -> Result<SagaHistory> {
        let ends = self.catch_up.fetch_end_offsets().await?;
        let fresh = self.catch_up.wait(std::slice::from_ref(saga), &ends, Instant::now() + FRESH_WITHIN).await?;
        if fresh != [true] {
            return Err(behind());
        }
        let loaded = self.planner.histories_of(std::slice::from_ref(saga)).await.pop();
        let known = loaded.unwrap_or_else(|| Err(Error::bug("load history of saga: no answer")))?;
        if self.catch_up.covers(saga, &ends, &known) { Ok(known) } else { Err(behind()) }
    }

    async fn publish(&self, request: &ReplayRequest, saga: &SagaId) -> Result<()> {
        let record = NewRecord {
            topic: self.topic.clone(),
            partition: None,
            key: Some(saga.as_str().as_bytes().to_vec().into()),
            value: Some(request::encode_request(request, self.schema)?.into()),
            headers: Vec::new(),
            timestamp: None,
        };
        self.publisher.send(vec![record]).await
    }
}

fn behind() -> Error {
    Error::refused("behind", "the saga's partition is not caught up yet")
}

/// What a recorded refusal answers when its request comes again.
fn refusal_of(record: &LogRecord) -> Error {
    let code = record.code.as_deref().unwrap_or_default();
    let known = REFUSALS.into_iter().find(|known| *known == code);
    Error::refused(known.unwrap_or("request_invalid"), record.message.clone().unwrap_or_default())
}
