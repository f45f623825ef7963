//! Looks at what the process depends on, for `/readyz` and the metrics: does it answer, and does it take what is written?

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::process::Process;
use crate::error::Result;
use crate::roles::stopped;

/// How often dependencies are looked at for `/readyz`, and the partitioner for the chains.
const WATCH: Duration = Duration::from_secs(1);
/// So many looks apart the newest keys are read again while they tell nothing: a process that folds nothing sees no others.
const LOOKS_PER_SEED: u32 = 30;
/// So many looks apart the partition counts of the log are read again, while not all are known.
const LOOKS_PER_COUNTS: u32 = 30;
/// So many looks apart every chain is followed to its end: a saga with events in two partitions shows by that.
const LOOKS_PER_FOLLOW: u32 = 600;

impl Process {
    /// Looks at the dependencies, and at what the keys say of the partitioner, until the shutdown.
    pub(super) async fn watch_dependencies(self, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        let parts = &self.components;
        // What was last said of each.
        let mut told: HashMap<&'static str, String> = HashMap::new();
        for look in 1_u32.. {
            // Any broker will do: one that is gone takes its partitions, not the process.
            let log_partitions = parts.ends.partitions_of(&parts.config.topics.log).await;
            let broker = log_partitions.is_ok();
            if let Ok(count) = log_partitions {
                self.log_may_have_more(count, look).await;
            }
            let marks = self.stores.hot.marks(0).await;
            // Of partitions that are read elsewhere: here there may be no record that tells the time.
            for (_, mark) in marks.iter().flatten() {
                parts.clock.carried(mark.complete_through, Instant::now(), (parts.now)());
            }
            let (claimed, cold) = self.stores.still_ours().await?;
            let hot = match (marks, claimed) {
                (Ok(_), Ok(())) => self.stores.hot.takes_writes().await,
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            tell(&mut told, "hot", &hot);
            tell(&mut told, "cold", &cold);
            for (name, up) in [("broker", broker), ("hot", hot.is_ok()), ("cold", cold.is_ok())] {
                self.readiness.set(name, up);
                parts.metrics.dependency_up.with_label_values(&[name]).set(i64::from(up));
            }
            let partitioning = &self.stores.partitioning;
            let may_tell = broker && partitioning.known().is_none() && partitioning.partitioner().is_some();
            if may_tell && look.is_multiple_of(LOOKS_PER_SEED) {
                let seeded = self.stores.seed_partitioner(&parts.config, &parts.ends, parts.registry.as_deref(), &parts.schemas);
                tokio::select! {
                    seeded = seeded => if let Err(error) = seeded {
                        tracing::debug!(%error, "newest keys not read, trying again");
                    },
                    () = stopped(&mut shutdown) => break,
                }
            }
            self.stores.follow_partitioner();
            if (look - 1).is_multiple_of(LOOKS_PER_FOLLOW) {
                let history = self.stores.history.clone();
                tokio::spawn(async move {
                    if let Err(error) = history.follow_all().await {
                        tracing::debug!(%error, "chains not followed, trying again later");
                    }
                });
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH) => {}
                () = stopped(&mut shutdown) => break,
            }
        }
        Ok(())
    }

    async fn log_may_have_more(&self, count: i32, look: u32) {
        let counts = &self.components.log_partition_counts;
        let is_new = counts.log_has(count);
        if (is_new || (!counts.is_known(count) && look.is_multiple_of(LOOKS_PER_COUNTS)))
            && let Err(error) = counts.refresh(count).await
        {
            tracing::debug!(%error, "partition counts of the replay log not read, trying again later");
        }
    }
}

/// Logs why a dependency is not fit for use, when that is new.
fn tell(told: &mut HashMap<&'static str, String>, dependency: &'static str, answer: &Result<()>) {
    let reason = answer.as_ref().err().map(ToString::to_string);
    if told.get(dependency) != reason.as_ref()
        && let Some(reason) = &reason
    {
        tracing::warn!(dependency, reason, "not ready");
    }
    told.remove(dependency);
    told.extend(reason.map(|reason| (dependency, reason)));
}
