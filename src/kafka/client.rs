//! Settings of each kind of client: what resaga's guarantees need, good defaults, then what the user sets.
//!
//! A property on which a guarantee stands cannot be overridden: trying to is an error that names it.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::bootstrap::Bootstrap;
use super::client_log;
use super::failure::CONFIG_INVALID;
use crate::config;
use crate::error::{Error, Result};

/// What a client is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A member of a consumer group.
    Member {
        group: &'a str,
    },
    /// Reads whole topics, in no group (librdkafka wants a name all the same).
    Tail {
        group: &'a str,
    },
    /// Asks for metadata and ends, reads nothing.
    Observer,
    /// Creates and describes topics.
    Admin,
    /// Writes records, each acknowledged.
    Producer,
    Transactional {
        id: &'a str,
    },
}

/// `transaction.timeout.ms`: how long an open transaction of a crashed worker holds up readers.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes of one record a producer takes: dead letters may be far larger than what is read as good.
const PRODUCER_MAX_RECORD: &str = "67108864";

pub(super) fn client_config(kafka: &config::KafkaConfig, purpose: Purpose<'_>) -> Result<ClientConfig> {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    for (key, value) in defaults(purpose) {
        client.set(*key, *value);
    }
    if matches!(purpose, Purpose::Tail { .. }) {
        // A transaction's records appear partition by partition: one fetch for all of them, not one for each. Who follows is
        // up to `fetch.wait.max.ms` late, and as much again where the end is a control record.
        client.set("fetch.min.bytes", "65536");
    }
    for (key, value) in &kafka.properties {
        client.set(key, value);
    }
    for (key, value) in fixed(kafka, purpose) {
        if let Some(set) = kafka.properties.get(key)
            && *set != value
        {
            return Err(Error::invalid(
                CONFIG_INVALID,
                format!("kafka.properties.{key}: is set by resaga and cannot be changed"),
            ));
        }
        client.set(key, value);
    }
    Ok(client)
}

/// Of clients that ask leaders for ends. With connections made on demand librdkafka 2.12 takes each change of a leader's
/// connection as a reason to connect at once, without the backoff: a leader that refuses costs 80 % of a core until it is back.
const NO_SPARSE_CONNECTIONS: (&str, &str) = ("enable.sparse.connections", "false");

/// Defaults that the user may change.
fn defaults(purpose: Purpose<'_>) -> &'static [(&'static str, &'static str)] {
    match purpose {
        Purpose::Member { .. } | Purpose::Tail { .. } => &[
            ("client.id", "resaga"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("statistics.interval.ms", "5000"),
            // The default of a second stalls a fast reader each time its queue was full.
            ("fetch.queue.backoff.ms", "20"),
            // The end of a partition behind a control record is told when a fetch comes back empty: replays of its sagas
            // wait for that.
            ("fetch.wait.max.ms", "30"),
            ("fetch.max.bytes", "2097152"),
            // What is fetched of one partition at once is unpacked whole, and each partition has a queue of its own: with many
            // partitions these decide how much memory a backlog takes.
            ("max.partition.fetch.bytes", "131072"),
            ("queued.min.messages", "1000"),
            ("queued.max.messages.kbytes", "1024"),
            ("topic.metadata.refresh.interval.ms", "30000"),
            ("reconnect.backoff.max.ms", "2000"),
            NO_SPARSE_CONNECTIONS,
        ],
        Purpose::Observer | Purpose::Admin => &[
            ("client.id", "resaga"),
            ("socket.timeout.ms", "10000"),
            ("reconnect.backoff.max.ms", "2000"),
            NO_SPARSE_CONNECTIONS,
        ],
        Purpose::Producer => &[
            ("client.id", "resaga"),
            ("compression.type", "zstd"),
            ("linger.ms", "5"),
            ("message.timeout.ms", "30000"),
            ("message.max.bytes", PRODUCER_MAX_RECORD),
            ("queue.buffering.max.kbytes", "131072"),
            ("topic.metadata.propagation.max.ms", "5000"),
            ("reconnect.backoff.max.ms", "2000"),
        ],
        Purpose::Transactional { .. } => &[
            ("client.id", "resaga"),
            ("compression.type", "zstd"),
            // Level 3 took a tenth of the CPU of many replays.
            ("compression.level", "1"),
            // All of a batch is at hand at once.
            ("linger.ms", "0.5"),
            // Below the transaction's, or librdkafka refuses to start.
            ("message.timeout.ms", "14000"),
            ("message.max.bytes", PRODUCER_MAX_RECORD),
            ("queue.buffering.max.kbytes", "131072"),
            ("topic.metadata.propagation.max.ms", "5000"),
            // After a commit the coordinator is busy for a moment: the default of 100 ms is most of a small transaction.
            ("retry.backoff.ms", "10"),
            ("reconnect.backoff.max.ms", "2000"),
        ],
    }
}

/// What a guarantee stands on.
fn fixed(kafka: &config::KafkaConfig, purpose: Purpose<'_>) -> Vec<(&'static str, String)> {
    let mut fixed = vec![("bootstrap.servers", kafka.brokers.clone())];
    let mut fix = |pairs: &[(&'static str, &str)]| fixed.extend(pairs.iter().map(|(key, value)| (*key, (*value).to_owned())));
    match purpose {
        Purpose::Member { group } | Purpose::Tail { group } => {
            fix(&[
                ("group.id", group),
                ("isolation.level", "read_committed"),
                ("enable.partition.eof", "true"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                // A topic that somebody forgot must be an error, not 12 partitions of the broker's liking.
                ("allow.auto.create.topics", "false"),
            ]);
            if matches!(purpose, Purpose::Member { .. }) && !kafka.instance.is_empty() {
                fix(&[("group.instance.id", &kafka.instance)]);
            }
        }
        Purpose::Observer => fix(&[("allow.auto.create.topics", "false")]),
        Purpose::Admin => {}
        Purpose::Producer => {
            fix(&[("enable.idempotence", "true"), ("acks", "all"), ("partitioner", "murmur2_random")]);
        }
        Purpose::Transactional { id } => fix(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            ("transactional.id", id),
            ("transaction.timeout.ms", &TRANSACTION_TIMEOUT.as_millis().to_string()),
        ]),
    }
    fixed
}

/// A client whose only wish is that its lines reach the log, and that it finds the brokers again.
#[derive(Debug)]
pub(super) struct LoggingContext {
    pub(super) bootstrap: Bootstrap,
}

impl LoggingContext {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self { bootstrap: Bootstrap::new(config) }
    }
}

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }
    fn stats_raw(&self, _statistics: &[u8]) {}
    fn error(&self, error: KafkaError, reason: &str) {
        self.bootstrap.on_error(error.rdkafka_error_code());
        client_log::error_of(&error, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(key: &str, value: &str) -> config::KafkaConfig {
        config::KafkaConfig { properties: [(key.to_owned(), value.to_owned())].into(), ..config::KafkaConfig::default() }
    }

    #[test]
    fn a_property_of_the_user_overrides_a_default() {
        let config = client_config(&kafka("fetch.wait.max.ms", "7"), Purpose::Member { group: "g" }).unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn a_property_on_which_a_guarantee_stands_cannot_be_changed() {
        let error = client_config(&kafka("enable.auto.commit", "true"), Purpose::Member { group: "g" }).unwrap_err();
        assert_eq!(error.code(), CONFIG_INVALID);
        assert!(error.to_string().contains("kafka.properties.enable.auto.commit"), "{error}");
        client_config(&kafka("enable.auto.commit", "false"), Purpose::Member { group: "g" }).unwrap();
    }

    #[test]
    fn a_member_with_an_instance_is_static() {
        let kafka = config::KafkaConfig { instance: "a".into(), ..config::KafkaConfig::default() };
        let config = client_config(&kafka, Purpose::Member { group: "g" }).unwrap();
        assert_eq!(config.get("group.instance.id"), Some("a"));
        assert_eq!(
            client_config(&config::KafkaConfig::default(), Purpose::Member { group: "g" }).unwrap().get("group.instance.id"),
            None
        );
    }
}
