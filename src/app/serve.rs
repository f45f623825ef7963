//! `serve`: checks everything, starts the roles, and stops them in order.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::log_counts::RecordedPartitionCounts;
use super::replays::ReplayApi;
use super::stores::Stores;
use super::{Role, log_restore, log_view, schemas, stores, topics};
use crate::api::{self, Api, ConnectionLimits, Health, Hosts, Readiness};
use crate::cold::log_counts::{self, LogCounts};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::Ends;
use crate::kafka::intake::{Intake, IntakeLimits};
use crate::kafka::publisher::Publisher;
use crate::kafka::registry::SchemaRegistry;
use crate::roles::materialize::{self, Materialize};
use crate::roles::replay::catch_up::CatchUpBarrier;
use crate::roles::replay::planner::{ReplayPlanner, Rules};
use crate::roles::replay::submit::{Submit, WRITTEN_WITHIN};
use crate::roles::replay::{self, Replay, ReplayTargets, SchemaIds};
use crate::roles::replay_log::ReplayLog;
use crate::roles::replay_log::homes::Homes;
use crate::roles::retry::until_available;
use crate::roles::stopped;
use crate::saga::fold::FoldSettings;
use crate::saga::position::Topic;
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro;
use crate::wire::event::OWN_RECORD_FACTOR;

/// Pause before a role that lost its dependencies begins again.
const ROLE_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait at the start for what the newest keys say.
const SEED_WITHIN: Duration = Duration::from_secs(10);

/// Everything that roles are made of.
#[derive(Clone)]
pub(super) struct Process {
    pub config: Arc<Config>,
    pub stores: Arc<Stores>,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<avro::Schemas>,
    pub metrics: Arc<Metrics>,
    pub log: Arc<ReplayLog>,
    pub ends: Ends,
    pub targets: ReplayTargets,
    pub request_partitions: i32,
    /// Of the replay log, as far as anybody has heard.
    pub log_partitions: Arc<watch::Sender<i32>>,
    /// The partition counts under which the log was written, and where its records may be by that.
    pub written_under: Arc<RecordedPartitionCounts>,
    pub homes: Arc<watch::Sender<Homes>>,
    pub readiness: Readiness,
    pub clock: Arc<BrokerClock>,
    pub shutdown: watch::Receiver<bool>,
}

/// The only clock.
pub(super) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Runs the roles until a signal says to stop.
pub async fn serve(config: Config, roles: Vec<Role>) -> anyhow::Result<ExitCode> {
    let counts = topics::partition_counts(&config).await?;
    let stores = stores::open(&config, &counts).await?;
    let (stop, shutdown) = watch::channel(false);
    let time_out = config.serve.shutdown_timeout;
    let (process, log_task) = Process::prepare(config, stores, &counts, shutdown).await?;
    let mut tasks = process.start(&roles, log_task).await?;
    let listener = process.listen().await?;
    if roles.contains(&Role::Api) {
        tasks.spawn(process.clone().api(listener));
    } else {
        tasks.spawn(process.clone().health_only(listener));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), roles = ?roles.iter().map(|r| r.as_str()).collect::<Vec<_>>(), "resaga started");
    let mut running = tasks;
    let outcome = tokio::select! {
        ended = running.join_next() => ended_role(ended),
        () = signal() => Ok(()),
    };
    let _ = stop.send(true);
    let drained = async { outcome.and(drain(running).await) };
    tokio::select! {
        outcome = tokio::time::timeout(time_out, drained) => match outcome {
            Ok(outcome) => outcome?,
            Err(_) => anyhow::bail!("not drained within serve.shutdown_timeout; what was not committed is read again at the next start"),
        },
        () = signal() => {
            tracing::warn!("second signal: leaving at once");
            return Ok(ExitCode::FAILURE);
        }
    }
    tracing::info!("resaga stopped");
    Ok(ExitCode::SUCCESS)
}

/// Waits until every task has ended.
pub(super) async fn drain(mut running: JoinSet<Result<()>>) -> Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        outcome = outcome.and(ended_role(Some(ended)));
    }
    outcome
}

pub(super) fn ended_role(ended: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        None => Ok(()),
        Some(Ok(outcome)) => outcome,
        Some(Err(panic)) => Err(Error::bug(format!("a role ended: {panic}"))),
    }
}

/// SIGTERM or SIGINT.
pub(super) async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

type LogTask = tokio::task::JoinHandle<Result<()>>;

impl Process {
    /// Everything but the roles; begins to read the replay log.
    pub async fn prepare(
        config: Config,
        stores: Stores,
        counts: &[(String, i32)],
        shutdown: watch::Receiver<bool>,
    ) -> Result<(Self, LogTask)> {
        let count = |topic: &str| counts.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count);
        let topics = config.topics.clone();
        let registry = match config.registry.url.as_str() {
            "" => None,
            url => Some(Arc::new(SchemaRegistry::new(url)?)),
        };
        let schemas = Arc::new(avro::Schemas::new(registry.is_some()));
        let ids = match &registry {
            None => SchemaIds::default(),
            Some(registry) => schemas::register(registry, &topics, &schemas).await?,
        };
        let log = Arc::new(ReplayLog::new(config.replay.max_log_records));
        let request_partitions = count(&topics.requests);
        let ends = Ends::new(&config.kafka)?;
        let (log_partitions, more_partitions) = watch::channel(request_partitions);
        let log_topic = log_view::LogTopic {
            kafka: config.kafka.clone(),
            topic: topics.log.clone(),
            ends: ends.clone(),
            view: log.clone(),
            schemas: schemas.clone(),
            registry: registry.clone(),
        };
        let log_task = log_view::follow(log_topic, more_partitions);
        let written_under = log_counts::read(&*stores.objects, &topics.log, LogCounts::default()).await?;
        let homes = Homes::new(request_partitions, &written_under.partitions, written_under.complete, count(&topics.log));
        // Topics that were just made have no leaders for a moment. What the keys say is worth a look, not a start that fails:
        // the look is repeated while they tell nothing.
        let seed = || stores.seed_partitioner(&config, &ends, registry.as_deref(), &schemas);
        let seeded = tokio::time::timeout(SEED_WITHIN, until_available("read newest keys", seed)).await;
        seeded.unwrap_or_else(|_| {
            tracing::warn!("newest keys of the events topics not read yet, trying again later");
            Ok(())
        })?;
        let process = Self {
            ends,
            targets: ReplayTargets {
                restored: topics.restored,
                log: topics.log,
                dead_letters: topics.dead_letters,
                requests: topics.requests,
                schemas: ids,
            },
            config: Arc::new(config),
            stores: Arc::new(stores),
            registry,
            schemas,
            metrics: Metrics::new(),
            log,
            request_partitions,
            log_partitions: Arc::new(log_partitions),
            written_under: Arc::new(RecordedPartitionCounts::new(written_under)),
            homes: Arc::new(watch::Sender::new(homes)),
            clock: Arc::new(BrokerClock::new(Instant::now())),
            readiness: Readiness::of(["broker", "hot", "cold", "replay-log"]),
            shutdown,
        };
        Ok((process, log_task))
    }

    /// Starts the roles and what they need besides. A task that ends before the shutdown ends the process.
    pub async fn start(&self, roles: &[Role], log_task: LogTask) -> Result<JoinSet<Result<()>>> {
        let mut tasks = JoinSet::new();
        let mut shutdown = self.shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                ended = log_task => ended.map_err(|e| Error::bug(format!("read replay log: {e}")))?,
                () = stopped(&mut shutdown) => Ok(()),
            }
        });
        tasks.spawn(self.clone().restore_log());
        for role in roles {
            self.metrics.role_up.with_label_values(&[role.as_str()]).set(1);
            match role {
                Role::Materialize => {
                    self.readiness.set("materialize", false);
                    self.readiness.set("materialize-log", false);
                    tasks.spawn(self.clone().keep_running("materialize", Self::materialize));
                    tasks.spawn(self.clone().keep_running("materialize-log", Self::materialize_log));
                }
                Role::Replay => {
                    self.readiness.set("replay", false);
                    tasks.spawn(self.clone().keep_running("replay", Self::replay));
                }
                // Bridge and compact come in a later version; who listens is the caller's affair.
                Role::Api | Role::Bridge | Role::Compact => {}
            }
        }
        tasks.spawn(self.clone().watch());
        Ok(tasks)
    }

    /// Begins a role again when it lost its dependencies; anything else ends the process.
    async fn keep_running<F>(self, name: &'static str, run: fn(Self) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let mut shutdown = self.shutdown.clone();
        loop {
            match run(self.clone()).await {
                Err(Error::Unavailable(reason)) if !*shutdown.borrow() => {
                    tracing::warn!(role = name, reason, "role lost its dependencies, beginning again");
                    self.readiness.set(name, false);
                }
                other => return other,
            }
            tokio::select! {
                () = tokio::time::sleep(ROLE_PAUSE) => {}
                () = stopped(&mut shutdown) => return Ok(()),
            }
        }
    }

    async fn materialize(self) -> Result<()> {
        let topics = self.config.topics.events.iter().map(|topic| Topic::from(topic.as_str())).collect();
        self.materialize_topics("materialize", topics).await
    }

    /// A group of its own: the assignor evens out partitions over a group's topics together, and one process could get
    /// the log's and another the events'.
    async fn materialize_log(self) -> Result<()> {
        let topics = vec![Topic::from(self.config.topics.log.as_str())];
        self.materialize_topics("materialize-log", topics).await
    }

    async fn materialize_topics(self, name: &'static str, topics: Vec<Topic>) -> Result<()> {
        let config = &self.config;
        let group = format!("{}-{name}", config.kafka.group_id);
        let limits = IntakeLimits { held_bytes: config.limits.intake_bytes(), ..IntakeLimits::default() };
        let (intake, events) = Intake::start(&config.kafka, &group, &topics, limits)?;
        let fold = fold_settings(config);
        let settings = materialize::Settings {
            owners: self.stores.owners.clone(),
            log: config.topics.log.as_str().into(),
            requests: config.topics.requests.clone(),
            request_schema: self.targets.schemas.request,
            dead_letters: config.topics.dead_letters.clone(),
            max_record_bytes: config.limits.max_record,
            fold_text: format!("{fold:?}"),
            fold,
            flush_interval: config.cold.flush_interval,
            flush_bytes: config.cold.flush_bytes,
            buffer_bytes: config.cold.buffer_bytes,
            max_cached_sagas: usize::try_from(config.limits.max_cached_sagas).unwrap_or(usize::MAX),
            index_ttl: config.hot.ttl,
        };
        let parts = materialize::Dependencies {
            hot: self.stores.hot.clone(),
            objects: self.stores.objects.clone(),
            chains: self.stores.chains.clone(),
            clock: self.clock.clone(),
            history: self.stores.history.clone(),
            log_history: self.stores.log_history.clone(),
            publisher: Publisher::new(&config.kafka)?,
            ends: self.ends.clone(),
            registry: self.registry.clone(),
            schemas: self.schemas.clone(),
            partitioning: self.stores.partitioning.clone(),
            metrics: self.metrics.clone(),
            assigned: self.told(name),
            now,
        };
        Materialize::new(parts, settings, intake).run(events, self.shutdown.clone()).await
    }

    async fn replay(self) -> Result<()> {
        let config = &self.config;
        let group = format!("{}-replay", config.kafka.group_id);
        let limits = IntakeLimits { held_bytes: config.limits.intake_bytes(), ..IntakeLimits::default() };
        let intake = Intake::start(&config.kafka, &group, &[config.topics.requests.as_str().into()], limits)?;
        let instance = match config.kafka.instance.as_str() {
            "" => Uuid::new_v4().to_string(),
            instance => instance.to_owned(),
        };
        let parts = replay::Dependencies {
            kafka: config.kafka.clone(),
            transactional_id: format!("{group}-{instance}"),
            planner: self.planner(),
            catch_up: self.catch_up(),
            ends: self.ends.clone(),
            partitioning: self.stores.partitioning.clone(),
            registry: self.registry.clone(),
            schemas: self.schemas.clone(),
            metrics: self.metrics.clone(),
            partition_counts: {
                let process = self.clone();
                Arc::new(move |requests, log| {
                    let process = process.clone();
                    Box::pin(async move { process.log_is_written_under(requests, log).await })
                })
            },
            assigned: self.told("replay"),
            now,
        };
        let settings = replay::Settings {
            group: config.kafka.group_id.clone(),
            targets: self.targets.clone(),
            request_partitions: self.request_partitions,
            max_batch_requests: config.replay.max_batch_requests,
            max_parked_requests: config.replay.max_parked_requests,
            rate: config.replay.rate,
        };
        Replay::new(parts, settings, intake).run(self.shutdown.clone()).await
    }

    async fn listen(&self) -> Result<TcpListener> {
        let listen = &self.config.api.listen;
        TcpListener::bind(listen).await.map_err(|e| {
            let remedy = "each process listens, for /readyz and /metrics, whatever its roles: give each an address of its own";
            Error::invalid("config_invalid", format!("api.listen: cannot listen on {listen}: {e}; {remedy}"))
        })
    }

    pub async fn api(self, listener: TcpListener) -> Result<()> {
        let publisher = Publisher::within(&self.config.kafka, WRITTEN_WITHIN)?;
        let topic = (self.config.topics.requests.clone(), self.targets.schemas.request);
        let submit = Submit::new(self.planner(), self.catch_up(), publisher, topic, now);
        let api = Api {
            history: Arc::new(self.stores.history.clone()),
            replays: Arc::new(ReplayApi { submit }),
            health: self.health(),
            max_body: usize::try_from(self.config.limits.max_record).unwrap_or(usize::MAX),
        };
        api::serve(listener, api::router(api), self.connection_limits(), self.shutdown.clone()).await
    }

    /// Of a process without role `api`.
    async fn health_only(self, listener: TcpListener) -> Result<()> {
        api::serve(listener, api::health_router(self.health()), self.connection_limits(), self.shutdown.clone()).await
    }

    fn health(&self) -> Health {
        let api = &self.config.api;
        Health { readiness: self.readiness.clone(), metrics: self.metrics.clone(), hosts: Hosts::new(&api.listen, &api.hosts) }
    }

    fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.config.api.max_connections,
            peer: self.config.api.peer_timeout,
            // Questions that take longer must not make an exit 1 of a shutdown that lost nothing.
            drain: self.config.serve.shutdown_timeout.mul_f64(0.8),
        }
    }

    fn planner(&self) -> ReplayPlanner {
        let config = &self.config;
        ReplayPlanner {
            history: self.stores.history.clone(),
            log_history: self.stores.log_history.clone(),
            log: self.log.clone(),
            homes: self.homes.subscribe(),
            rules: Rules {
                max_depth: config.replay.max_depth,
                restored_allowed: config.topics.restored_allowed.clone(),
                max_restored_bytes: config.limits.max_record.saturating_mul(3),
                max_event_bytes: config.limits.max_record.saturating_mul(OWN_RECORD_FACTOR),
            },
        }
    }

    fn catch_up(&self) -> CatchUpBarrier {
        CatchUpBarrier { ends: self.ends.clone(), history: self.stores.history.clone(), chains: self.stores.chains.clone() }
    }

    /// What the log's topic has dropped, once it is read. Then waits for the shutdown, as a task that ends would end the process.
    async fn restore_log(self) -> Result<()> {
        let mut shutdown = self.shutdown.clone();
        let restore = async {
            self.log.whole().await;
            self.readiness.set("replay-log", true);
            let topic = self.config.topics.log.as_str();
            let alarm_after = log_restore::ALARM_AFTER;
            let restoring =
                log_restore::LogRestore { view: &self.log, stores: &self.stores, topic, metrics: &self.metrics, alarm_after };
            restoring.restore().await
        };
        tokio::select! {
            restored = restore => match restored {
                Ok(0) => {}
                Ok(replays) => tracing::info!(replays, "replays that the log's topic has dropped are back from history"),
                Err(error) => tracing::warn!(%error, "replays that the log's topic has dropped are found by id only"),
            },
            () = stopped(&mut shutdown) => {}
        }
        stopped(&mut shutdown).await;
        Ok(())
    }

    /// The view reads them all, and replays are looked for in all of their chains. `true`: there are more than before.
    pub(super) fn log_has_partitions(&self, count: i32) -> bool {
        self.stores.log_chains.raise(&self.config.topics.log, count);
        self.log_partitions.send_if_modified(|known| {
            let more = count > *known;
            *known = count.max(*known);
            more
        })
    }

    /// Tells `/readyz` that a role has had its first assignment.
    fn told(&self, role: &'static str) -> Arc<dyn Fn(bool) + Send + Sync> {
        let readiness = self.readiness.clone();
        Arc::new(move |assigned| readiness.set(role, assigned))
    }
}

pub(super) fn fold_settings(config: &Config) -> FoldSettings {
    let by_saga = config.snapshots.saga.iter().filter_map(|(name, own)| Some((name.clone(), own.policy?)));
    FoldSettings {
        max_clock_ahead_micros: i64::try_from(config.limits.max_clock_ahead.as_micros()).unwrap_or(i64::MAX),
        max_state_bytes: config.limits.max_state,
        policy: config.snapshots.policy,
        policy_by_saga: by_saga.collect(),
    }
}
