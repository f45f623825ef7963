//! Rules that a whole configuration must keep, beyond the type of each value.

use std::collections::HashSet;
use std::time::Duration;

use super::schemes::HotScheme;
use super::sections::Config;

/// A key and what is wrong with its value; never the value.
pub type Broken = (&'static str, String);

/// All rules that are broken, in the order of the keys.
pub fn check(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut rule = |key: &'static str, holds: bool, must: &str| {
        if !holds {
            broken.push((key, must.to_owned()));
        }
    };

    let brokers = config.kafka.brokers.split(',').map(str::trim);
    rule("kafka.brokers", brokers.clone().all(is_host_port), "must name brokers as host:port, comma separated");
    rule("kafka.group_id", !config.kafka.group_id.trim().is_empty(), "must not be empty");

    topics(config, &mut rule);

    rule("hot.url", HotScheme::of(&config.hot.url).is_some(), &HotScheme::must());
    let s3_bucket = config.cold.url.strip_prefix("s3://").map(|rest| rest.split('/').next().unwrap_or_default());
    let directory = config.cold.url.strip_prefix("file://");
    rule(
        "cold.url",
        s3_bucket.is_some_and(|bucket| !bucket.is_empty()) || directory.is_some_and(|path| path.starts_with('/')),
        "must be s3://bucket/prefix or file:///absolute/path",
    );
    let endpoint = config.cold.endpoint.as_deref();
    rule("cold.endpoint", endpoint.is_none_or(|url| has_scheme(url, &["http", "https"])), "must begin with http:// or https://");
    let registry = &config.registry.url;
    rule("registry.url", registry.is_empty() || has_scheme(registry, &["http", "https"]), "must begin with http:// or https://");

    let mut longer_than_zero = |key, span: Duration| rule(key, !span.is_zero(), "must be longer than 0s");
    longer_than_zero("hot.ttl", config.hot.ttl);
    longer_than_zero("hot.timeout", config.hot.timeout);
    longer_than_zero("cold.flush_interval", config.cold.flush_interval);
    longer_than_zero("cold.timeout", config.cold.timeout);
    longer_than_zero("snapshots.retention", config.snapshots.retention);
    longer_than_zero("stuck.after", config.stuck.after);
    longer_than_zero("limits.max_expression", config.limits.max_expression);
    longer_than_zero("api.peer_timeout", config.api.peer_timeout);
    longer_than_zero("serve.shutdown_timeout", config.serve.shutdown_timeout);

    let mut above_zero = |key, number: u64| rule(key, number > 0, "must be above 0");
    above_zero("hot.pipeline_bytes", config.hot.pipeline_bytes);
    above_zero("cold.flush_bytes", config.cold.flush_bytes);
    above_zero("cold.buffer_bytes", config.cold.buffer_bytes);
    above_zero("limits.max_record", config.limits.max_record);
    above_zero("limits.max_state", config.limits.max_state);
    above_zero("limits.max_cached_sagas", config.limits.max_cached_sagas);
    above_zero("limits.max_intake_bytes", config.limits.max_intake_bytes);
    above_zero("replay.max_depth", config.replay.max_depth.into());
    above_zero("replay.max_batch_requests", config.replay.max_batch_requests as u64);
    above_zero("replay.max_parked_requests", config.replay.max_parked_requests as u64);
    above_zero("api.max_connections", config.api.max_connections as u64);
    above_zero("replay.max_log_records", config.replay.max_log_records as u64);

    rule(
        "limits.max_record",
        config.limits.max_record <= 200 << 20,
        "must be at most 200MiB: four times that is the largest record librdkafka takes",
    );
    rule("api.listen", is_host_port(&config.api.listen), "must be host:port, such as 127.0.0.1:8080");
    rule(
        "api.hosts",
        config.api.hosts.iter().all(|name| is_host(name)),
        "must be names such as resaga.example.org, or with a port resaga.example.org:8443; no scheme, no path",
    );
    rule("log.level", !config.log.level.trim().is_empty(), "must be a filter, such as info or resaga=debug");
    broken
}

fn topics(config: &Config, rule: &mut impl FnMut(&'static str, bool, &str)) {
    let topics = &config.topics;
    let name = "must be a topic name: 1 to 249 letters, digits, '.', '_' or '-'";
    rule("topics.events", !topics.events.is_empty(), "must name at least one topic");
    rule("topics.events", topics.events.iter().all(|topic| is_topic(topic)), name);
    rule("topics.restored_allowed", topics.restored_allowed.iter().all(|topic| is_topic(topic)), name);
    let own = [
        ("topics.requests", &topics.requests),
        ("topics.restored", &topics.restored),
        ("topics.log", &topics.log),
        ("topics.dead_letters", &topics.dead_letters),
    ];
    for (key, topic) in own {
        rule(key, is_topic(topic), name);
    }
    let mut seen = HashSet::new();
    rule("topics.events", topics.events.iter().all(|topic| seen.insert(topic)), "must name each topic once");
    for (key, topic) in own {
        rule(key, seen.insert(topic), "must be a topic of its own: another key names it too");
    }
    rule("topics.partitions", topics.partitions > 0, "must be above 0");
    rule("topics.replication", topics.replication == -1 || topics.replication > 0, "must be above 0, or -1 for the broker's");
}

fn is_topic(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}

fn is_host_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// A name or address, and perhaps a port.
fn is_host(name: &str) -> bool {
    let host = if is_host_port(name) { name.rsplit_once(':').map_or(name, |(host, _)| host) } else { name };
    let legal = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(legal),
    }
}

fn has_scheme(url: &str, schemes: &[&str]) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| schemes.contains(&scheme))
}
