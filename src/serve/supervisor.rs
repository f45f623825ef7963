//! Runs the tasks of a process side by side and ends them together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::api::Readiness;
use crate::error::{Error, Result};
use crate::roles::{Assigned, RoleTask, stopped};

/// Pause before a role that lost its dependencies is run again.
const ROLE_PAUSE: Duration = Duration::from_secs(1);

pub struct Supervisor {
    readiness: Readiness,
    shutdown: watch::Sender<bool>,
    role_pause: Duration,
    tasks: JoinSet<Result<()>>,
}

impl Supervisor {
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, shutdown: watch::Sender::new(false), role_pause: ROLE_PAUSE, tasks: JoinSet::new() }
    }

    pub fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.subscribe()
    }

    /// A task that ends before the shutdown ends the process.
    pub fn spawn(&mut self, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Not ready until it has had its first assignment.
    pub fn run_role(&mut self, task: Arc<dyn RoleTask>) {
        self.readiness.set(task.readiness(), false);
        self.tasks.spawn(keep_running(task, self.readiness.clone(), self.role_pause, self.shutdown()));
    }

    /// Waits until a task has ended, and tells how.
    pub async fn ended(&mut self) -> Result<()> {
        self.tasks.join_next().await.map_or(Ok(()), outcome)
    }

    /// Tells all tasks to stop, and waits until each has ended. The first error counts.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.send_replace(true);
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            result = result.and(outcome(ended));
        }
        result
    }
}

fn outcome(ended: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or_else(|panic| Err(Error::bug(format!("a task of the process ended: {panic}"))))
}

/// Runs a role again when it lost its dependencies; anything else ends it.
async fn keep_running(
    task: Arc<dyn RoleTask>,
    readiness: Readiness,
    pause: Duration,
    mut shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let condition = task.readiness();
    let assigned: Assigned = {
        let readiness = readiness.clone();
        Arc::new(move |assigned| readiness.set(condition, assigned))
    };
    loop {
        match task.run(assigned.clone(), shutdown.clone()).await {
            Err(Error::Unavailable(reason)) if !*shutdown.borrow() => {
                tracing::warn!(role = task.name(), reason, "role lost its dependencies, running it again");
                readiness.set(condition, false);
            }
            other => return other,
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut shutdown) => return Ok(()),
        }
    }
}

/// SIGTERM or SIGINT.
pub async fn signal() {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;

    /// Loses its dependencies once, is assigned then, and waits for the shutdown.
    #[derive(Default)]
    struct Flaky {
        runs: AtomicUsize,
    }

    #[async_trait]
    impl RoleTask for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }
        async fn run(&self, assigned: Assigned, mut shutdown: watch::Receiver<bool>) -> Result<()> {
            if self.runs.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Error::unavailable("a dependency of the test"));
            }
            assigned(true);
            stopped(&mut shutdown).await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_role_that_lost_its_dependencies_is_run_again_and_stops_with_the_process() {
        let readiness = Readiness::default();
        let mut supervisor = Supervisor { role_pause: Duration::ZERO, ..Supervisor::new(readiness.clone()) };
        let role = Arc::new(Flaky::default());
        supervisor.run_role(role.clone());
        assert!(!readiness.is_ready(), "before its first assignment");
        let ready = async {
            while !readiness.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ready).await.expect("it is run again, and assigned then");
        assert_eq!(supervisor.stop().await, Ok(()));
        assert_eq!(role.runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_task_that_fails_tells_why_and_the_others_are_stopped() {
        let mut supervisor = Supervisor::new(Readiness::default());
        let mut shutdown = supervisor.shutdown();
        supervisor.spawn(async move {
            stopped(&mut shutdown).await;
            Ok(())
        });
        supervisor.spawn(async { Err(Error::bug("a fault of the test")) });
        assert_eq!(supervisor.ended().await, Err(Error::bug("a fault of the test")));
        assert_eq!(supervisor.stop().await, Ok(()));
    }
}
