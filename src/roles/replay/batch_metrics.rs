//! What a batch adds to the metrics, once it is committed: what was decided and not published counts for nothing.

use crate::saga::time::Micros;
use crate::telemetry::Metrics;

#[derive(Default)]
pub struct BatchMetrics {
    /// Requests by result, with the saga's name where it is known.
    results: Vec<(String, &'static str)>,
    pub duplicates: u64,
    pub dead_letters: u64,
    /// Since when each restored saga was requested.
    pub requested_at: Vec<Micros>,
    /// From publication to end, microseconds.
    pub ended_after: Vec<i64>,
}

impl BatchMetrics {
    /// `result`: published, parked, dry_run or the code of the refusal.
    pub fn result(&mut self, saga_name: &str, result: &'static str) {
        self.results.push((saga_name.to_owned(), result));
    }

    pub fn publish(self, metrics: &Metrics, now: Micros) {
        let seconds = |micros: i64| micros.max(0) as f64 / 1e6;
        for (name, result) in self.results {
            let name = if name.is_empty() { "" } else { metrics.saga_name(&name) };
            metrics.replay_requests.with_label_values(&[name, "topic", result]).inc();
        }
        metrics.replay_duplicates_suppressed.inc_by(self.duplicates);
        if self.dead_letters > 0 {
            metrics.dead_letters.with_label_values(&["replay", "invalid_request"]).inc_by(self.dead_letters);
        }
        self.requested_at.into_iter().for_each(|at| metrics.replay_duration.observe(seconds(now.0 - at.0)));
        self.ended_after.into_iter().for_each(|after| metrics.replay_end_to_end.observe(seconds(after)));
    }
}
