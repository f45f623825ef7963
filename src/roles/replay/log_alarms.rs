//! Alarms of partitions of the replay log, as the metrics show them.

use std::sync::Arc;

use crate::telemetry::{Alarm, Metrics};

#[derive(Clone)]
pub struct LogAlarms {
    metrics: Arc<Metrics>,
    log: String,
}

impl LogAlarms {
    pub fn new(metrics: Arc<Metrics>, log: &str) -> Self {
        Self { metrics, log: log.to_owned() }
    }

    pub fn log(&self) -> &str {
        &self.log
    }

    pub fn raise(&self, number: i32, alarm: Alarm) {
        self.metrics.raise_alarm(&self.log, number, alarm);
    }

    pub fn clear(&self, number: i32, alarm: Alarm) {
        self.metrics.clear_alarm(&self.log, number, alarm);
    }

    /// The partition is not ours any more.
    pub fn clear_all(&self, number: i32) {
        let raised = [Alarm::LogNotKnown, Alarm::LogUnreadable, Alarm::LogOfAnotherGroup];
        raised.into_iter().for_each(|alarm| self.clear(number, alarm));
    }
}
