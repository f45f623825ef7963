//! The loop of the role: waits for what comes first, and hands it on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::intake_events::{IntakeEvents, ReadingEvent};
use super::runner::BatchRunner;
use super::settings::{Dependencies, Settings};
use crate::error::{Error, Result};
use crate::kafka::intake::{Intake, IntakeEvent};
use crate::retry::Backoff;
use crate::roles::{stop_intake, stopped};
use crate::saga::position::{Offset, TopicPartition};

const TICK: Duration = Duration::from_millis(50);

pub struct Replay {
    events: IntakeEvents,
    intake: Intake,
    runner: BatchRunner,
    /// Told when partitions were assigned.
    assigned: Arc<dyn Fn(bool) + Send + Sync>,
    /// No batch before this.
    not_before: Instant,
    backoff: Backoff,
    stopping: bool,
}

impl Replay {
    pub fn new(deps: Dependencies, settings: Settings, (intake, events): (Intake, mpsc::Receiver<IntakeEvent>)) -> Self {
        Self {
            events: IntakeEvents::new(events),
            assigned: deps.assigned.clone(),
            runner: BatchRunner::new(deps, settings, intake.clone()),
            intake,
            not_before: Instant::now(),
            backoff: Backoff::new("replay"),
            stopping: false,
        }
    }

    /// Until the shutdown is signalled or the intake fails.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        self.runner.committer.open().await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = Instant::now();
            let may_work =
                !self.stopping && now >= self.not_before && (self.runner.queue.may_take_up(now) || self.runner.is_batch_ready());
            tokio::select! {
                biased;
                () = stopped(&mut shutdown), if !self.stopping => self.stop(),
                event = self.events.next() => match event {
                    Some(event) => self.intake_event(event, &mut shutdown).await?,
                    None => return Ok(()),
                },
                Some(answer) = self.runner.schema_waits.next(), if !self.runner.schema_waits.is_idle() => {
                    self.runner.schema_looked_up(answer?)?;
                }
                // Before the work: where there always is some, partitions that rest would never be read again.
                _ = tick.tick() => if !self.stopping {
                    self.runner.tend().await?;
                    self.runner.advance_jobs().await;
                    if Instant::now() >= self.not_before && self.runner.is_something_due() {
                        self.work().await?;
                    }
                },
                () = std::future::ready(()), if may_work => self.work().await?,
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        stop_intake(&self.intake);
    }

    async fn intake_event(&mut self, event: IntakeEvent, shutdown: &mut watch::Receiver<bool>) -> Result<()> {
        let metrics = self.runner.metrics.clone();
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                metrics.consumer_rebalances.with_label_values(&["replay"]).inc();
                // It was decided under the membership before.
                self.runner.prepared = None;
                let names: Vec<TopicPartition> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
                self.runner.reassignment.forget(&names);
                let starts = tokio::select! {
                    biased;
                    () = stopped(shutdown) => None,
                    () = self.events.revoked() => None,
                    starts = self.runner.assigned(partitions) => Some(starts),
                };
                // Else the intake gives again what is still ours.
                if let Some(starts) = starts {
                    let starts = starts?;
                    (self.assigned)(true);
                    let _ = reply.send(starts);
                }
            }
            // Work runs to its end before the next event is looked at, so nothing of these partitions is open.
            IntakeEvent::Revoked { partitions, reply, .. } => {
                self.runner.revoked(&partitions);
                let _ = reply.send(());
            }
            IntakeEvent::Records { batch } => {
                if !self.stopping {
                    self.runner.apply_reading(ReadingEvent::Records(batch));
                }
            }
            IntakeEvent::OffsetsGone { partition, position, reason } => self.offsets_gone(partition, position, &reason).await?,
            IntakeEvent::ReadsAgain { partition, ticket, outcome } => {
                self.runner.apply_reading(ReadingEvent::ReadsAgain { partition, ticket, outcome });
            }
            IntakeEvent::ReachedEnd { .. } | IntakeEvent::Stats(_) => {}
            IntakeEvent::Failed(error) if self.stopping => tracing::debug!(%error, "intake closed"),
            IntakeEvent::Failed(error) => return Err(error.context("read replay requests")),
        }
        let assigned = self.runner.queue.partitions().count() as i64;
        metrics.consumer_assigned_partitions.with_label_values(&["replay"]).set(assigned);
        Ok(())
    }

    async fn offsets_gone(&mut self, partition: TopicPartition, position: Offset, reason: &str) -> Result<()> {
        if !self.runner.offsets_gone(&partition, position, reason).await || self.stopping {
            return Ok(());
        }
        // The client reads nothing more of such a partition, also where it is assigned again: the role begins again, with another.
        Err(Error::unavailable(format!("requests of {partition} are gone from the topic: beginning again with what is there")))
    }

    /// One batch, from take-up to commit. What does not succeed is there again afterwards.
    async fn work(&mut self) -> Result<()> {
        match self.runner.run_batch(&mut self.events).await {
            Ok(true) => self.backoff.succeeded(),
            // What was read and cannot be taken up now must not be looked at without a pause.
            Ok(false) => {
                let waits = self.runner.queue.has_read() || self.runner.is_batch_ready();
                self.not_before = Instant::now() + if waits { TICK } else { Duration::ZERO };
            }
            // What is stored of one partition cannot be read: an operator can mend it while this process goes on.
            Err(Error::Unavailable(reason) | Error::Corrupt(reason)) => {
                self.not_before = Instant::now() + self.backoff.failed(&reason);
            }
            // Between memberships: the next assignment says what is ours.
            Err(Error::Refused { code, .. }) if code == crate::kafka::NOT_ASSIGNED => {
                self.not_before = Instant::now() + TICK;
            }
            Err(other) => return Err(other),
        }
        self.runner.metrics.replay_queue_records.set(self.runner.queue.waiting() as i64);
        Ok(())
    }
}
