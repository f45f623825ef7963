//! The HTTP server that every process has: all routes with role `api`, health and metrics without.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::batch_service::BatchApi;
use super::process::Process;
use super::replay_service::ReplayApi;
use super::schedule_service::ScheduleApi;
use crate::api::{self, ApiState, ConnectionLimits, Health, Hosts};
use crate::error::{Error, Result};
use crate::kafka::publisher::Publisher;
use crate::roles::replay::batches::submit::BatchSubmit;
use crate::roles::replay::job_requests::JobRequests;
use crate::roles::replay::schedules::policy_scan::PolicyScanner;
use crate::roles::replay::schedules::preview::SchedulePreview;
use crate::roles::replay::schedules::submit::ScheduleSubmit;
use crate::roles::replay::submit::{Submit, WRITTEN_WITHIN};
use crate::roles::replay::task::{catch_up, freezer, planner};
use crate::saga::effects::DeclaredEffects;

impl Process {
    pub(super) async fn listen(&self) -> Result<TcpListener> {
        let listen = &self.components.config.api.listen;
        TcpListener::bind(listen).await.map_err(|e| {
            let remedy = "each process listens, for /readyz and /metrics, whatever its roles: give each an address of its own";
            Error::invalid("config_invalid", format!("api.listen: cannot listen on {listen}: {e}; {remedy}"))
        })
    }

    /// Of a process with role `api`.
    pub async fn all_routes(self, listener: TcpListener, shutdown: watch::Receiver<bool>) -> Result<()> {
        let parts = &self.components;
        let publisher = Publisher::within(&parts.config.kafka, WRITTEN_WITHIN)?;
        let topic = (parts.config.topics.requests.clone(), parts.targets.schemas.request);
        let requests = JobRequests {
            records: planner(parts).records,
            publisher: publisher.clone(),
            topic: topic.0.clone(),
            schema: topic.1,
        };
        let schedules = ScheduleApi {
            submit: ScheduleSubmit { requests: requests.clone() },
            preview: SchedulePreview {
                planner: planner(parts),
                scanner: PolicyScanner { selection: freezer(parts).selection },
                now: parts.now,
            },
        };
        let by_saga_name = parts.config.saga.iter().map(|(name, saga)| (name.clone(), saga.effects.clone()));
        let effects = Arc::new(DeclaredEffects::new(by_saga_name.collect()));
        let batches = BatchSubmit {
            planner: planner(parts),
            catch_up: catch_up(parts),
            freezer: freezer(parts),
            requests,
            keep_plans: parts.config.replay.keep_plans,
            effects: effects.clone(),
            now: parts.now,
        };
        let submit = Submit::new(planner(parts), catch_up(parts), publisher, topic, parts.now);
        let api = ApiState {
            history: Arc::new(parts.history.clone()),
            replays: Arc::new(ReplayApi { submit, effects }),
            batches: Arc::new(BatchApi { submit: batches }),
            schedules: Arc::new(schedules),
            health: self.health(),
            max_body: usize::try_from(parts.config.limits.max_record).unwrap_or(usize::MAX),
        };
        api::serve(listener, api::router(api), self.connection_limits(), shutdown).await
    }

    /// Of a process without role `api`.
    pub(super) async fn health_only(self, listener: TcpListener, shutdown: watch::Receiver<bool>) -> Result<()> {
        api::serve(listener, api::health_router(self.health()), self.connection_limits(), shutdown).await
    }

    fn health(&self) -> Health {
        let api = &self.components.config.api;
        Health {
            readiness: self.readiness.clone(),
            metrics: self.components.metrics.clone(),
            hosts: Hosts::new(&api.listen, &api.hosts),
        }
    }

    fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.components.config.api.max_connections,
            peer: self.components.config.api.peer_timeout,
            // Questions that take longer must not make an exit 1 of a shutdown that lost nothing.
            drain: self.components.config.serve.shutdown_timeout.mul_f64(0.8),
        }
    }
}
