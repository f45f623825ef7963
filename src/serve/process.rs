//! A process with everything in it but its listener: what it is made of, and what runs besides its roles.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::components::components;
use super::roles::Role;
use super::stores::Stores;
use super::supervisor::Supervisor;
use crate::api::Readiness;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::replay_log::restore::{self, LogRestore};
use crate::roles::{Components, stopped};

#[derive(Clone)]
pub struct Process {
    pub(super) components: Components,
    pub(super) stores: Arc<Stores>,
    pub(super) readiness: Readiness,
}

/// Reads the replay log, to its end and on.
type LogTask = JoinHandle<Result<()>>;

impl Process {
    /// Starts the roles and what they need besides.
    pub async fn start(config: Config, stores: Stores, counts: &[(String, i32)], roles: &[&Role]) -> Result<(Self, Supervisor)> {
        let (components, log_task) = components(config, &stores, counts).await?;
        let readiness = Readiness::of(["broker", "hot", "cold", "replay-log"]);
        let mut supervisor = Supervisor::new(readiness.clone());
        let process = Self { components, stores: Arc::new(stores), readiness };
        supervisor.spawn(read_log(log_task, supervisor.shutdown()));
        supervisor.spawn(process.clone().restore_log(supervisor.shutdown()));
        for role in roles {
            process.components.metrics.role_up.with_label_values(&[role.name]).set(1);
            for task in role.tasks(&process.components) {
                supervisor.run_role(task);
            }
        }
        supervisor.spawn(process.clone().watch_dependencies(supervisor.shutdown()));
        Ok((process, supervisor))
    }

    /// What the log's topic has dropped, once it is read. Then waits for the shutdown, as a task that ends would end the process.
    async fn restore_log(self, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        let restore = async {
            let parts = &self.components;
            parts.log.whole().await;
            self.readiness.set("replay-log", true);
            let topic = parts.config.topics.log.as_str();
            let restoring = LogRestore {
                view: &parts.log,
                history: &parts.log_history,
                chains: &parts.log_chains,
                objects: &*parts.objects,
                topic,
                metrics: &parts.metrics,
                alarm_after: restore::ALARM_AFTER,
            };
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
}

async fn read_log(task: LogTask, mut shutdown: watch::Receiver<bool>) -> Result<()> {
    tokio::select! {
        ended = task => ended.map_err(|e| Error::bug(format!("read replay log: {e}")))?,
        () = stopped(&mut shutdown) => Ok(()),
    }
}
