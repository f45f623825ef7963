//! What the routes answer from.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRef;

use super::batch_service::BatchService;
use super::guard::Hosts;
use super::replay_service::ReplayService;
use super::schedule_service::ScheduleService;
use crate::history::History;
use crate::telemetry::Metrics;

/// What the routes answer from. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub history: Arc<History>,
    pub replays: Arc<dyn ReplayService>,
    pub batches: Arc<dyn BatchService>,
    pub schedules: Arc<dyn ScheduleService>,
    pub health: Health,
    /// Bytes of a request's body.
    pub max_body: usize,
}

/// What every process answers from, whatever its roles.
#[derive(Clone)]
pub struct Health {
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    /// Names by which it may be reached.
    pub hosts: Arc<Hosts>,
}

impl FromRef<ApiState> for Health {
    fn from_ref(api: &ApiState) -> Self {
        api.health.clone()
    }
}

/// What must hold before this process is ready, by name, and whether it does. The roles tell; nobody is asked here.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// What is waited for: broker, hot, cold, assignment ...
    pub fn of(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(RwLock::new(names.into_iter().map(|name| (name, false)).collect())))
    }

    pub fn set(&self, name: &'static str, holds: bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, holds);
    }

    #[cfg(test)]
    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().all(|holds| *holds)
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, bool> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
