//! A router over real stores without servers: memory and a directory, with histories folded from step events, and a
//! replay side that only remembers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use resaga::api::batch_service::{BatchAnswer, BatchFilter, BatchPage, BatchService, BatchSubmitted, PlanAnswer};
use resaga::api::replay_service::{AcceptedCancel, ReplayPage, ReplayService, SubmitAnswer};
use resaga::api::schedule_service::{ScheduleAnswer, ScheduleService, WouldPage};
use resaga::api::{ApiState, Health, Hosts, Readiness, router};
use resaga::cold::chain::ChainWriter;
use resaga::cold::directory::Directory;
use resaga::cold::reader::ColdReader;
use resaga::cold::segment::{NewRow, NewSegment};
use resaga::error::{Error, Result};
use resaga::history::answer::Child;
use resaga::history::chains::{Chains, TopicLayout};
use resaga::history::replay_lookup::ReplayLookup;
use resaga::history::{History, MAX_ENTRIES};
use resaga::hot::memory::MemoryHot;
use resaga::hot::{ActivityFact, FailureFact, HotBatch, HotStore, Mark, MarkMove, Member, SagaWrite, Tokens};
use resaga::saga::failure::SagaFailure;
use resaga::saga::fold::{Admitted, RecordMeta, Saga};
use resaga::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use resaga::saga::position::{ChainId, Offset, Position, SagaId};
use resaga::saga::replay_filter::ReplayFilter;
use resaga::saga::request::{CommandName, LogRecord};
use resaga::saga::selector::ReplayStanding;
use resaga::saga::time::Micros;
use resaga::telemetry::Metrics;
use resaga::wire::avro::Schemas;
use resaga::wire::event::decode_event;
use resaga::wire::frame::{encode_member, encode_saga};
use serde_json::Value;
use tower::ServiceExt;

use crate::described;

pub const TOPIC: &str = "saga.events.v1";

/// Which store has the histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Hot,
    Cold,
}

pub struct World {
    pub router: Router,
    pub readiness: Readiness,
    _directory: tempfile::TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl World {
    /// `events`: step events in log order, each a second after the one before it, all in one partition.
    pub async fn new(tier: Tier, events: &[Value]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let objects = Arc::new(Directory::open(directory.path()).expect("store"));
        let hot = Arc::new(MemoryHot::new(Duration::from_secs(3_600), Box::new(|| Duration::ZERO)));
        let chain = ChainId { topic: TOPIC.into(), incarnation: 0, partition: 0 };
        let (batch, rows) = fold(events);
        let through = Micros(Micros::from_millis(1_768_039_200_000).0 + 3_600_000_000);
        match tier {
            Tier::Hot => {
                let written = hot.write(&batch, Tokens::default().next()).await.expect("hot write");
                let new =
                    Mark { from: Offset(0), to: Offset(events.len() as i64), complete_through: through, settled: Offset(0) };
                let wanted = MarkMove { chain: chain.clone(), bucket: 0, expect: None, new };
                hot.move_marks(&[wanted], &written).await.expect("mark");
            }
            Tier::Cold => {
                let mut writer = ChainWriter::open(objects.clone(), chain.clone(), Some(Offset(0))).await.expect("chain");
                let segment = NewSegment {
                    start: Offset(0),
                    end: Offset(events.len() as i64 - 1),
                    rows: Arc::new(rows),
                    complete_through: through,
                    leader_epoch: None,
                    topic_id: None,
                    clock: Default::default(),
                    installation: Default::default(),
                    fold_settings: "{}".into(),
                    gap: false,
                };
                writer.append(&segment).await.expect("appended");
            }
        }
        let layout = TopicLayout { topic: TOPIC.into(), incarnations: Vec::new(), partition_counts: vec![1], partitioner: None };
        let chains = Arc::new(Chains::new(vec![layout]));
        let history = History::new(hot, Arc::new(ColdReader::new(objects, 1 << 20)), chains, MAX_ENTRIES);
        let readiness = Readiness::of(["broker"]);
        let api = ApiState {
            history: Arc::new(history),
            replays: Arc::new(Remembers),
            batches: Arc::new(NoBatches),
            schedules: Arc::new(NoSchedules),
            health: Health {
                readiness: readiness.clone(),
                metrics: Metrics::new(),
                hosts: Hosts::new("127.0.0.1:8080", &["resaga.example.org".to_owned()]),
            },
            max_body: 4_096,
        };
        Self { router: router(api), readiness, _directory: directory }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", None).await
    }
    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body, None).await
    }

    pub async fn send(&self, method: &str, path: &str, body: &str, key: Option<&str>) -> Answer {
        let key = key.map(|key| ("Idempotency-Key", key));
        self.send_with(method, path, body, key.as_slice()).await
    }

    pub async fn send_with(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Body::from(body.to_owned())).expect("request");
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        described::check(method, path, status, &text);
        Answer { status, headers, text }
    }
}

#[async_trait]
impl ReplayLookup for Remembers {
    async fn standing(&self, _saga: &SagaId) -> Result<ReplayStanding> {
        Ok(ReplayStanding::None)
    }
    async fn is_repaired(&self, _saga: &SagaId) -> Result<bool> {
        Ok(false)
    }
}

/// Batches need stores and topics: they are tried end to end. Their routes alone are here.
struct NoBatches;

#[async_trait]
impl BatchService for NoBatches {
    async fn submit(&self, body: &[u8], _: Option<&str>) -> Result<BatchSubmitted> {
        resaga::wire::request::batch_body::read_body(body)?;
        Ok(BatchSubmitted::OnItsWay { batch_id: "b".into() })
    }

    async fn plan(&self, _: &str, _: Option<&str>, _: usize) -> Result<PlanAnswer> {
        Err(Error::refused("plan_not_found", "none is kept"))
    }

    async fn get(&self, _: &str) -> Result<BatchAnswer> {
        Err(Error::refused("batch_not_found", "none is known"))
    }

    async fn list(&self, _: &BatchFilter, _: Option<&str>, _: usize) -> Result<BatchPage> {
        Ok(BatchPage::default())
    }

    async fn control(&self, _: &str, _: CommandName, _: &[u8]) -> Result<BatchAnswer> {
        Err(Error::refused("request_invalid", "the batch is paused already"))
    }
}

/// The same of schedules.
struct NoSchedules;

#[async_trait]
impl ScheduleService for NoSchedules {
    async fn submit(&self, body: &[u8], _: Option<&str>) -> Result<String> {
        resaga::wire::request::schedule_body::schedule_request(body, "r")?;
        Ok("s".into())
    }

    async fn get(&self, _: &str) -> Result<ScheduleAnswer> {
        Err(Error::refused("schedule_not_found", "none is known"))
    }

    async fn list(&self) -> Result<Vec<ScheduleAnswer>> {
        Ok(Vec::new())
    }

    async fn control(&self, _: &str, _: CommandName, _: &[u8]) -> Result<ScheduleAnswer> {
        Err(Error::refused("schedule_not_found", "none is known"))
    }

    async fn preview(&self, body: &[u8], _: Option<&str>, _: usize) -> Result<WouldPage> {
        resaga::wire::request::schedule_body::preview(body)?;
        Ok(WouldPage { would: Vec::new(), total: 0, next: None })
    }
}

/// What materialize would write of these events.
fn fold(events: &[Value]) -> (HotBatch, Vec<NewRow>) {
    let settings = FoldSettings {
        max_clock_ahead_micros: 3_600_000_000,
        max_state_bytes: 4 << 20,
        policy: SnapshotPolicy::BeforeEachStep,
        policy_by_saga: Vec::new(),
    };
    let schemas = Schemas::new(false);
    let mut sagas: BTreeMap<SagaId, Option<Saga>> = BTreeMap::new();
    let mut writes: BTreeMap<SagaId, Vec<Member>> = BTreeMap::new();
    let (mut batch, mut rows) = (HotBatch::default(), Vec::new());
    for (offset, event) in events.iter().enumerate() {
        let key = event["saga_id"].as_str().expect("id").as_bytes();
        let event = decode_event(Some(key), Some(event.to_string().as_bytes()), &[], 1 << 20, &schemas).expect("an event");
        let saga_id = event.saga_id.clone();
        let slot = sagas.entry(saga_id.clone()).or_default();
        let before = slot.as_ref().map(|saga| saga.state.context.clone());
        let meta = RecordMeta {
            position: Position::new(TOPIC, 0, offset as i64),
            timestamp: Micros::from_millis(1_768_039_200_000 + offset as i64 * 1_000),
        };
        let Admitted::Entry(entry) = Saga::admit(slot, event, &meta, false, &settings) else { panic!("no entry") };
        let saga = slot.as_ref().expect("folded");
        let bytes = encode_member(&entry, 0, before.as_ref(), entry.snapshot.then_some(saga));
        writes.entry(saga_id.clone()).or_default().push(Member { effective_time: entry.effective_time, bytes });
        let saga_name = saga.state.saga_name.clone();
        batch.failures.extend(SagaFailure::of(&entry).map(|failure| FailureFact {
            saga: saga_id.clone(),
            saga_name: saga_name.clone(),
            step: failure.step.clone().unwrap_or_default(),
            compensation: failure.compensation(),
            at: failure.at,
            sequence: failure.sequence,
            error_code: failure.error.as_ref().and_then(|error| error.code.clone()),
            error_type: failure.error.as_ref().and_then(|error| error.kind.clone()),
        }));
        batch.activity.push(ActivityFact { saga: saga_id, saga_name, minute: entry.effective_time.0.div_euclid(60_000_000) });
        rows.push(NewRow {
            status: saga.state.status,
            context: Some(saga.state.context.clone()),
            saga: Some(encode_saga(saga).into()),
            entry: Arc::new(*entry),
        });
    }
    batch.sagas = writes.into_iter().map(|(saga, members)| SagaWrite { saga, members, persist: false }).collect();
    (batch, rows)
}

/// Takes every request, knows no replay.
struct Remembers;

#[async_trait]
impl ReplayService for Remembers {
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<SubmitAnswer> {
        match serde_json::from_slice::<Value>(body).ok().as_ref().and_then(|body| body["saga_id"].as_str()) {
            None => Err(Error::invalid("request_invalid", "saga_id is required")),
            Some("running") => Err(Error::refused("saga_running", "its newest status is running")),
            Some("behind") => Err(Error::refused("behind", "its partition is not caught up")),
            Some(saga) => Ok(SubmitAnswer::Accepted {
                request_id: idempotency_key.unwrap_or("made").into(),
                replay_id: "r".into(),
                new_saga_id: SagaId::new(format!("new-{saga}")),
                request_sha256: "5e".into(),
            }),
        }
    }
    async fn cancel(&self, replay_id: &str, requested_by: &str, reason: &str) -> Result<AcceptedCancel> {
        match replay_id {
            "late" => Err(Error::refused("request_invalid", "it is published")),
            "r" => Ok(AcceptedCancel { request_id: format!("{requested_by}/{reason}"), replay_id: "c".into() }),
            _ => Err(Error::refused("replay_not_found", "no such replay")),
        }
    }
    async fn undo(&self, replay_id: &str, requested_by: &str, reason: &str) -> Result<AcceptedCancel> {
        match replay_id {
            "running" => Err(Error::refused("saga_running", "it runs")),
            other => self.cancel(other, requested_by, reason).await,
        }
    }
    async fn get(&self, _replay_id: &str) -> Result<Option<LogRecord>> {
        Ok(None)
    }
    async fn list(&self, _filter: &ReplayFilter, _after: Option<&str>, _limit: usize) -> Result<ReplayPage> {
        Ok(ReplayPage::default())
    }
    async fn children(&self, _saga: &SagaId) -> Result<Vec<Child>> {
        Ok(Vec::new())
    }
}
