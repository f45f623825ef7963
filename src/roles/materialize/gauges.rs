//! What metrics say of the partitions that are owned: backlog, lag, stuck sagas, and what the broker's answers take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clocks::Clocks;
use super::partitions::Partitions;
use super::stuck_sagas::StuckSagas;
use crate::history::History;
use crate::kafka::intake::IntakeStats;
use crate::saga::position::{Offset, TopicPartition};
use crate::telemetry::Metrics;

pub struct Gauges {
    metrics: Arc<Metrics>,
    stuck_sagas: StuckSagas,
}

impl Gauges {
    /// `keep`: sagas that moved last longer ago are not counted as stuck.
    pub fn new(metrics: Arc<Metrics>, history: &History, clocks: &Clocks, keep: Duration) -> Self {
        let stuck_sagas = StuckSagas::new(history.clone(), clocks.clone(), keep, Instant::now());
        Self { metrics, stuck_sagas }
    }

    pub fn tick(&mut self, partitions: &mut Partitions, now: Instant) {
        self.stuck_sagas.count_if_due(partitions, &self.metrics, now);
        self.backlog(partitions);
    }

    fn backlog(&self, partitions: &Partitions) {
        let bytes = partitions.backlog_bytes();
        self.metrics.snapshot_backlog_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let rows = partitions.values().map(|owned| owned.partition.undurable_rows()).sum::<usize>();
        self.metrics.snapshot_backlog_records.set(rows as i64);
        let cached = partitions.values().map(|owned| owned.partition.cache.len()).sum::<usize>();
        self.metrics.cached_sagas.set(cached as i64);
    }

    pub fn assigned(&self, partitions: &Partitions) {
        let assigned = self.metrics.consumer_assigned_partitions.with_label_values(&["materialize"]);
        assigned.set(partitions.len() as i64);
    }

    pub fn intake(&self, stats: &IntakeStats, partitions: &Partitions) {
        let micros = |micros: u64| micros as f64 / 1e6;
        let round_trip = &self.metrics.broker_rtt_seconds;
        round_trip.with_label_values(&["0.5"]).set(micros(stats.round_trip_p50_micros));
        round_trip.with_label_values(&["0.99"]).set(micros(stats.round_trip_p99_micros));
        for partition in &stats.partitions {
            let labels = [&*partition.partition.topic, &partition.partition.partition.to_string()];
            let stuck = partition.last_stable_stuck.as_secs_f64();
            self.metrics.last_stable_offset_stuck_seconds.with_label_values(&labels).set(stuck);
            if let Some(end) = partition.end {
                self.lag(&partition.partition, end, partitions);
            }
        }
    }

    /// `end`: of the partition's log.
    pub fn lag(&self, partition: &TopicPartition, end: Offset, partitions: &Partitions) {
        if let Some(owned) = partitions.get(partition) {
            let labels = [&*partition.topic, &partition.partition.to_string()];
            let lag = (end.0 - owned.partition.position.0).max(0);
            self.metrics.consumer_lag_records.with_label_values(&labels).set(lag);
        }
    }

    /// A series of a partition that somebody else has would stand still and mislead.
    pub fn forget(&self, partition: &TopicPartition) {
        let labels = [&*partition.topic, &partition.partition.to_string()];
        let _ = self.metrics.consumer_lag_records.remove_label_values(&labels);
        let _ = self.metrics.last_stable_offset_stuck_seconds.remove_label_values(&labels);
    }
}
