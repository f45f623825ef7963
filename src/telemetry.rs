//! Logs and metrics: `tracing` to stderr, and one struct with every metric and its help text.
//!
//! Knows names, labels and buckets. Labels are bounded: never a saga id, a replay id or a person; a saga name goes
//! through [`Metrics::saga_name`]. The struct is made once and passed around as `Arc<Metrics>`; nothing here is global.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::error::{Error, Result};

/// Media type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Saga names that get a series of their own; all others are counted as `other`.
const MAX_SAGA_NAMES: usize = 100;

/// Seconds, from a hot look-up to an outage.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
    3_600.0,
];
/// Bytes, from an entry to a full segment.
const BYTES: &[f64] = &[256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 8_388_608.0, 67_108_864.0];
/// Small numbers of things.
const COUNTS: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1_000.0];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Why a partition is stopped or waits: the label `code` of `resaga_partition_alarms`. What to do about each is in
/// docs/operations.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Offsets that were to be read were deleted (retention).
    OffsetsGone,
    /// The partition was cut back, or replaced.
    OffsetsReplaced,
    /// The topic was deleted and created again.
    TopicReplaced,
    /// The archive is another installation's.
    StoreOfAnother,
    /// What is stored of a partition cannot be read.
    HistoryCorrupt,
    /// Requests of a partition of the replay log cannot be told from ones seen before.
    LogNotKnown,
    /// Something that history has of a partition of the replay log cannot be read.
    LogUnreadable,
    /// A replay that the topic of the replay log has dropped may wait, and nobody carries it out.
    WaitingNotKnown,
    /// The partition of the replay log belongs to another group.
    LogOfAnotherGroup,
}

impl Alarm {
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
    pub const ALL: [Self; 9] = [
        Self::OffsetsGone,
        Self::OffsetsReplaced,
        Self::TopicReplaced,
        Self::StoreOfAnother,
        Self::HistoryCorrupt,
        Self::LogNotKnown,
        Self::LogUnreadable,
        Self::WaitingNotKnown,
        Self::LogOfAnotherGroup,
    ];

    pub const fn code(self) -> &'static str {
        match self {
            Self::OffsetsGone => "offsets_gone",
            Self::OffsetsReplaced => "offsets_replaced",
            Self::TopicReplaced => "topic_replaced",
            Self::StoreOfAnother => "store_of_another",
            Self::HistoryCorrupt => "history_corrupt",
            Self::LogNotKnown => "log_not_known",
            Self::LogUnreadable => "log_unreadable",
            Self::WaitingNotKnown => "waiting_not_known",
            Self::LogOfAnotherGroup => "log_of_another_group",
        }
    }
}

/// A metric as docs/interface/metrics.md shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricReference {
    pub name: &'static str,
    pub shape: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Every metric, in the order of the table.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
pub fn reference() -> &'static [MetricReference] {
    TABLE
}

/// A kind of metric that can be made from a name, a help text and label names.
trait Make: Collector + Clone + Sized + 'static {
    const KIND: MetricKind;
    fn make(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self>;
}

macro_rules! make {
    ($type:ty, $shape:ident, ($name:ident, $help:ident, $labels:ident) => $make:expr) => {
        impl Make for $type {
            const KIND: MetricKind = MetricKind::$shape;
            fn make($name: &str, $help: &str, $labels: &[&str]) -> prometheus::Result<Self> {
                $make
            }
        }
    };
}
make!(IntCounter, Counter, (name, help, _labels) => Self::new(name, help));
make!(IntCounterVec, Counter, (name, help, labels) => Self::new(Opts::new(name, help), labels));
make!(IntGauge, Gauge, (name, help, _labels) => Self::new(name, help));
make!(IntGaugeVec, Gauge, (name, help, labels) => Self::new(Opts::new(name, help), labels));
make!(Gauge, Gauge, (name, help, _labels) => Self::new(name, help));
make!(GaugeVec, Gauge, (name, help, labels) => Self::new(Opts::new(name, help), labels));
make!(Histogram, Histogram, (name, help, _labels) => Self::with_opts(histogram(name, help)));
make!(HistogramVec, Histogram, (name, help, labels) => Self::new(histogram(name, help), labels));

fn histogram(name: &str, help: &str) -> HistogramOpts {
    let buckets = match name {
        _ if name.ends_with("_seconds") => SECONDS,
        _ if name.ends_with("_bytes") => BYTES,
        _ => COUNTS,
    };
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

macro_rules! metrics {
    ($($field:ident: $type:ty, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        /// Every metric. Fields with labels take them in the order of their help text's brackets.
        pub struct Metrics {
            registry: Registry,
            saga_names: Mutex<HashSet<Box<str>>>,
            $(#[doc = $help] #[doc = concat!("\n\n`", $name, "`", $(" `", $label, "`",)*)] pub $field: $type,)*
        }

        const TABLE: &[MetricReference] =
            &[$(MetricReference { name: $name, shape: <$type as Make>::KIND, labels: &[$($label),*], help: $help }),*];

        impl Metrics {
            fn register(registry: Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $($field: {
                        let metric = <$type as Make>::make($name, $help, &[$($label),*])?;
                        registry.register(Box::new(metric.clone()))?;
                        metric
                    },)*
                    registry,
                    saga_names: Mutex::new(HashSet::new()),
                })
            }
        }
    };
}

metrics! {
    // Ingest
    events_consumed: IntCounterVec, "resaga_events_consumed_total", ["topic"], "Records read from step topics.";
    events_duplicate: IntCounter, "resaga_events_duplicate_total", [], "Step events that were seen before and got no entry.";
    events_sequence_conflicts: IntCounter, "resaga_events_sequence_conflicts_total", [], "Step events without an entry, as another event of the saga has their sequence.";
    events_time_doubted: IntCounter, "resaga_events_time_doubted_total", [], "Records of step topics whose timestamp cannot be true: the time of the records before it counts.";
    events_anomalies: IntCounterVec, "resaga_events_anomalies_total", ["anomaly"], "Entries with an anomaly, by its name.";
    event_process_duration: HistogramVec, "resaga_event_process_duration_seconds", ["stage"], "Time that one batch of records took in a stage of the pipeline.";
    events_misplaced: IntCounterVec, "resaga_events_misplaced_total", ["topic"], "Step events found in another partition than the one where the producers' partitioner puts their key.";
    saga_partition_conflicts: IntCounter, "resaga_saga_partition_conflicts_total", [], "Sagas found with events in more than one partition.";
    dead_letters: IntCounterVec, "resaga_dead_letters_total", ["stage", "code"], "Records written to the dead letter topic.";
    dead_letters_cut: IntCounter, "resaga_dead_letters_cut_total", [], "Dead letters that no topic took whole and that were written cut.";
    stuck_sagas: IntGaugeVec, "resaga_stuck_sagas", ["saga_name"], "Sagas that are stuck now, of the partitions that this process owns and has read to their end.";
    cached_sagas: IntGauge, "resaga_cached_sagas", [], "Sagas whose state is in memory.";

    // Kafka
    consumer_lag_records: IntGaugeVec, "resaga_consumer_lag_records", ["topic", "partition"], "Records between the consumer's position and the partition's end.";
    consumer_assigned_partitions: IntGaugeVec, "resaga_consumer_assigned_partitions", ["role"], "Partitions assigned to this process.";
    consumer_rebalances: IntCounterVec, "resaga_consumer_rebalances_total", ["role"], "Rebalances of the consumer group seen by this process.";
    transactions: IntCounterVec, "resaga_transactions_total", ["result"], "Kafka transactions by result: committed, aborted, fenced or unknown.";
    transaction_duration: Histogram, "resaga_transaction_duration_seconds", [], "Time from the begin to the commit of a Kafka transaction.";
    broker_rtt_seconds: GaugeVec, "resaga_broker_rtt_seconds", ["quantile"], "Round trip time to the slowest broker, as librdkafka measures it.";
    last_stable_offset_stuck_seconds: GaugeVec, "resaga_last_stable_offset_stuck_seconds", ["topic", "partition"], "For how long the last stable offset has not moved though the end is ahead of it (an open transaction).";
    partition_alarms: IntGaugeVec, "resaga_partition_alarms", ["topic", "partition", "code"], "1 while a partition is stopped and waits for an operator, by the code of the reason.";

    // Snapshots and stores
    snapshot_durability_delay: Histogram, "resaga_snapshot_durability_delay_seconds", [], "Time from an entry's recorded time to its acknowledgement by the cold store, the oldest entry of each segment.";
    snapshot_backlog_records: IntGauge, "resaga_snapshot_backlog_records", [], "Entries that are not yet durable in the cold store.";
    snapshot_backlog_bytes: IntGauge, "resaga_snapshot_backlog_bytes", [], "Raw bytes that are not yet durable in the cold store.";
    integrity_failures: IntCounterVec, "resaga_integrity_failures_total", ["store"], "Stored data that did not agree with its hash, or two stored copies that differ.";
    partitions_refolded: IntCounter, "resaga_partitions_begun_anew_total", [], "Times that a partition was folded again from its durable end, as another owner had stored something else there.";
    hot_marks_lost: IntCounter, "resaga_hot_marks_lost_total", [], "Times that the hot store had lost writes, which were then written again.";

    // Queries
    state_queries: IntCounterVec, "resaga_state_queries_total", ["source", "result"], "Look-ups of a state, by where the answer came from.";
    state_query_duration: HistogramVec, "resaga_state_query_duration_seconds", ["source"], "Time to look up a state.";
    state_query_events_folded: Histogram, "resaga_state_query_events_folded", [], "Entries folded after the snapshot to answer one look-up.";

    // Replay
    replay_requests: IntCounterVec, "resaga_replay_requests_total", ["saga_name", "via", "result"], "Replay requests taken up, by result: published, parked, dry_run or the code of the refusal.";
    replay_duration: Histogram, "resaga_replay_duration_seconds", [], "Time from the request's record to the restored saga's publication.";
    replay_end_to_end: Histogram, "resaga_replay_end_to_end_seconds", [], "Time from a restored saga's publication to its end.";
    replay_queue_records: IntGauge, "resaga_replay_queue_records", [], "Replay requests that wait, parked or for their saga's partition.";
    replay_duplicates_suppressed: IntCounter, "resaga_replay_duplicates_suppressed_total", [], "Repeated replay requests that were dropped.";
    replay_throttled: IntCounter, "resaga_replay_throttled_total", [], "Times that a replay waited for the rate limit.";

    // Process
    build_info: IntGaugeVec, "resaga_build_info", ["version"], "1, with the version of the program.";
    role_up: IntGaugeVec, "resaga_role_up", ["role"], "1 while a role runs.";
    dependency_up: IntGaugeVec, "resaga_dependency_up", ["dependency"], "1 while a dependency answers.";
    http_requests: IntCounterVec, "resaga_http_requests_total", ["route", "method", "status"], "HTTP requests answered.";
    http_request_duration: HistogramVec, "resaga_http_request_duration_seconds", ["route"], "Time to answer an HTTP request.";
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let process: Box<dyn Collector> = Box::new(ProcessCollector::for_self());
        let metrics = registry
            .register(process)
            .and_then(|()| Self::register(registry))
            .expect("the table's names and labels are valid and distinct: a test makes it");
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Arc::new(metrics)
    }

    /// The label for a saga name: itself for the first hundred names seen, else `other`.
    pub fn saga_name<'a>(&self, name: &'a str) -> &'a str {
        let mut names = self.saga_names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            name
        } else if names.len() < MAX_SAGA_NAMES {
            names.insert(name.into());
            name
        } else {
            "other"
        }
    }

    /// A partition stands still.
    pub fn raise_alarm(&self, topic: &str, partition: i32, alarm: Alarm) {
        self.partition_alarms.with_label_values(&[topic, &partition.to_string(), alarm.code()]).set(1);
    }

    /// It goes on, or is another process's.
    pub fn clear_alarm(&self, topic: &str, partition: i32, alarm: Alarm) {
        // It is an error that there is none, and nothing else.
        let _ = self.partition_alarms.remove_label_values(&[topic, &partition.to_string(), alarm.code()]);
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(|e| Error::bug(format!("render metrics: {e}")))
    }
}

/// Sends logs to stderr from now on. `level` is a tracing filter, such as `info` or `resaga=debug`. Call once.
pub fn init_logs(format: LogFormat, level: &str) -> Result<()> {
    let filter = EnvFilter::try_new(level)
        .map_err(|e| Error::invalid("config_invalid", format!("log.level is not a filter such as info or resaga=debug: {e}")))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Text if std::io::stderr().is_terminal() => logs.try_init(),
        LogFormat::Text => logs.with_ansi(false).try_init(),
    };
    done.map_err(|e| Error::bug(format!("start logging: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let mut seen = HashSet::new();
        for MetricReference { name, shape, labels, help } in TABLE {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("resaga_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *shape == MetricKind::Counter, "{name}: counters and only they end in _total");
            for suffix in ["_count", "_sum", "_bucket", "_milliseconds", "_ms", "_us"] {
                assert!(!name.ends_with(suffix), "{name}: {suffix} means something else or is no base unit");
            }
            if *shape == MetricKind::Histogram {
                assert!(["_seconds", "_bytes", "_folded"].iter().any(|unit| name.ends_with(unit)), "{name}: unit");
            }
            assert!(help.ends_with('.') && help.len() > 10, "{name}: help is a sentence");
            for label in *labels {
                assert!(!["id", "saga_id", "replay_id", "user"].contains(label), "{name}: {label} is not bounded");
                assert!(*label != "partition" || labels.contains(&"topic"), "{name}: a partition is one of a topic");
            }
        }
    }

    #[test]
    fn rendering_gives_what_was_counted() {
        let metrics = Metrics::new();
        metrics.events_consumed.with_label_values(&["saga.events.v1"]).inc_by(3);
        metrics.snapshot_durability_delay.observe(0.3);
        let text = metrics.render().expect("rendered");
        assert!(text.contains("resaga_events_consumed_total{topic=\"saga.events.v1\"} 3"), "{text}");
        assert!(text.contains("resaga_snapshot_durability_delay_seconds_bucket{le=\"0.5\"} 1"), "{text}");
        assert!(text.contains("# HELP resaga_build_info"), "{text}");
        assert!(text.contains("process_"), "{text}");
    }

    #[test]
    fn only_so_many_saga_names_get_a_series() {
        let metrics = Metrics::new();
        for n in 0..MAX_SAGA_NAMES {
            let name = format!("saga-{n}");
            assert_eq!(metrics.saga_name(&name), name);
        }
        assert_eq!(metrics.saga_name("one-more"), "other");
        assert_eq!(metrics.saga_name("saga-7"), "saga-7");
    }
}
