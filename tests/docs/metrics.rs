//! docs/interface/metrics.md: every metric that is registered.

use resaga::telemetry::{MetricKind, MetricReference, reference};

use crate::pages::{check_file, code, generated, table};

const PAGE: &str = "docs/interface/metrics.md";

const INTRO: &str = "\
`GET /metrics` of every process, in the text format of Prometheus; `process_*` besides. Labels are bounded: `saga_name` has the first
hundred names and then `other`, no label is a saga id, a replay id or a person. Durations are seconds, sizes bytes. What to do about
which: [operating](../operations.md#metrics). Values of `code` of `resaga_partition_alarms`: [alarms](codes.md#alarms).
";

#[test]
fn the_page_of_the_metrics_is_what_is_registered() {
    let row = |metric: &MetricReference| {
        let labels: Vec<_> = metric.labels.iter().map(|label| code(label)).collect();
        vec![code(metric.name), kind(metric.shape).to_owned(), labels.join(", "), metric.help.to_owned()]
    };
    let metrics = table(&["metric", "type", "labels", "meaning"], reference().iter().map(row));
    check_file(PAGE, &format!("{}{INTRO}\n{metrics}", generated("Metrics", "src/telemetry.rs")));
}

fn kind(shape: MetricKind) -> &'static str {
    match shape {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}
