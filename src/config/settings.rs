//! The table of every key: its place in [`Config`] and how its value is written. Loading, showing and the commented
//! default file all go by it.

use toml::Value;

use super::sections::{Config, SnapshotOverride};
use super::units::{Choice, Count, DurationValue, Limit, List, Rate, Size, Switch, TextValue, ValueKind};

/// One key.
pub struct Setting {
    /// `section.name`.
    pub key: &'static str,
    pub read: fn(&mut Config, &Value) -> Result<(), String>,
    pub write: fn(&Config) -> Value,
    pub of_text: fn(&str) -> Value,
    /// What its values are, with their unit.
    kind: fn() -> String,
    meaning: &'static str,
}

/// A setting as docs/interface/configuration.md and config/resaga.toml show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingReference {
    /// `section.name`.
    pub key: &'static str,
    /// What its values are, with their unit.
    pub kind: String,
    /// In TOML.
    pub default: String,
    pub meaning: &'static str,
}

/// Every setting, in the order of the file.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
pub fn reference() -> Vec<SettingReference> {
    let config = Config::default();
    let one = |setting: &Setting| SettingReference {
        key: setting.key,
        kind: (setting.kind)(),
        default: (setting.write)(&config).to_string(),
        meaning: setting.meaning,
    };
    SETTINGS.iter().map(one).collect()
}

macro_rules! settings {
    ($($section:ident.$name:ident: $kind:ty, $meaning:literal;)*) => {
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: concat!(stringify!($section), ".", stringify!($name)),
            read: |config, value| <$kind>::read(value).map(|value| config.$section.$name = value),
            write: |config| <$kind>::write(&config.$section.$name),
            of_text: |text| of_text::<$kind, _>(text, |config| &config.$section.$name),
            kind: || kind::<$kind, _>(|config| &config.$section.$name),
            meaning: $meaning,
        }),*];
    };
}

/// Names the field so that a kind of several types is settled by it.
fn of_text<K: ValueKind<T>, T>(text: &str, _field: fn(&Config) -> &T) -> Value {
    K::of_text(text)
}

fn kind<K: ValueKind<T>, T>(_field: fn(&Config) -> &T) -> String {
    K::name()
}

settings! {
    kafka.brokers: TextValue, "`host:port`, comma separated.";
    kafka.group_id: TextValue,
        "Begins the names of the consumer groups, `<group_id>-materialize`, `-materialize-log` and `-replay`; with the \
         cluster it names the installation that stores belong to.";
    kafka.instance: TextValue,
        "A name that stays the same when this process restarts and that no other process has: static membership and the \
         transactional id come from it. Empty: a dynamic member with a random id.";
    topics.events: List, "Step events in resaga's own format, keyed by saga id.";
    topics.requests: TextValue, "Replay requests.";
    topics.restored: TextValue, "Restored sagas.";
    topics.log: TextValue, "The replay log; one of its own for each `group_id` that carries out replays.";
    topics.dead_letters: TextValue, "Records that cannot be used.";
    topics.restored_allowed: List, "Topics that a replay may name as its `target` instead of `topics.restored`.";
    topics.partitions: Count, "Of topics that `topic apply` creates.";
    topics.replication: Count, "Of topics that `topic apply` creates; -1: the broker's default.";
    topics.partitioner: Choice,
        "What the producers of step events use. `auto`: the one that explains the keys seen, `murmur2` until then; where \
         none does, replays stop and the log says why.";
    hot.url: TextValue,
        "`redis://`, `rediss://` (TLS), `redis+cluster://`, `rediss+cluster://`, or `memory://` (one process, for trying \
         out). `?prefix=NAME` begins every key; default `resaga`.";
    hot.ttl: DurationValue, "How long a saga stays here after its last entry; older ones are read from the cold store.";
    hot.pipeline_bytes: Size, "Of commands sent in one pipeline.";
    hot.timeout: DurationValue, "Of one operation.";
    cold.url: TextValue, "`s3://bucket/prefix` or `file:///var/lib/resaga`.";
    cold.endpoint: TextValue, "Of an S3 that is not Amazon's; empty: Amazon's.";
    cold.region: TextValue, "Empty: as `AWS_REGION` or the AWS files say.";
    cold.path_style: Switch, "`http://endpoint/bucket/key` instead of `http://bucket.endpoint/key`.";
    cold.flush_interval: DurationValue, "A partition's entries are written when the oldest is this old.";
    cold.flush_bytes: Size, "They are also written when they are this large.";
    cold.buffer_bytes: Size,
        "They are also written, the largest partition's first, when those of all partitions together are this large.";
    cold.cache_bytes: Size, "Of indexes and filters that readers keep in memory.";
    cold.timeout: DurationValue, "Of one operation.";
    snapshots.policy: Choice,
        "Which entries look-ups begin from. State at a time is exact under each; it decides from how far back a look-up \
         folds. `manual`: CHECKPOINT events alone.";
    snapshots.retention: DurationValue, "How long history is kept. Has no effect yet.";
    stuck.after: DurationValue,
        "A saga that runs or compensates counts as stuck when nothing was recorded of it for longer than this; \
         `[stuck.saga.\"NAME\"] after` of sagas of a name.";
    limits.max_clock_ahead: DurationValue,
        "An event that says it occurred later than this after its record's timestamp counts as of the record's timestamp \
         (anomaly `clock_ahead`).";
    limits.max_record: Size,
        "Of what others write, at most 200 MiB. resaga's own records may be four times that; `topic apply` sets \
         `max.message.bytes` so.";
    limits.max_state: Size,
        "Of context, results, errors and labels. A state over it keeps its last context (anomaly `state_too_large`).";
    limits.max_cached_sagas: Count, "Sagas whose state is in memory, over all partitions.";
    limits.max_intake_bytes: Size,
        "Of records in the hands of one consumer at once; at least four times `limits.max_record`, whatever it says.";
    limits.max_expression: DurationValue, "Of one evaluation of a jq expression; what takes longer is `override_invalid`.";
    replay.max_depth: Count, "How many replays may stand on top of each other.";
    replay.max_replays: Limit,
        "How many replays one lineage may have, all that were not refused, cancelled or with a forced failure: a brake on \
         automation that replays its own failures. More need `allow_repeat`.";
    replay.rate: Rate, "Of replays, per process: `unlimited`, or a number a second such as `10/s`.";
    replay.max_batch_requests: Count, "Requests in one Kafka transaction.";
    replay.max_parked_requests: Count, "Requests that wait in memory, per partition; more stay in the topic.";
    replay.max_log_records: Count,
        "Records of the replay log in memory besides those that wait; older ones are looked up in history.";
    replay.keep_plans: DurationValue, "How long the plan of a batch may be run.";
    registry.url: TextValue, "Of the schema registry (Confluent's API); records that resaga writes are Avro then. Empty: JSON.";
    api.listen: TextValue, "`host:port` of HTTP.";
    api.hosts: List,
        "Further names by which it is reached, such as `resaga.example.org`; loopback names and the listen address need not \
         be here. A request for another host is 421. Behind a proxy: the name that browsers show.";
    api.max_connections: Count, "Connections open at once; more wait to be accepted.";
    api.peer_timeout: DurationValue,
        "Of the other side of a connection: for a request's headers, for its body, for an answer that it does not take, and \
         between two requests.";
    log.format: Choice, "Of the log on stderr.";
    log.level: TextValue, "A filter such as `info`, `warn` or `resaga=debug`.";
    serve.shutdown_timeout: DurationValue, "How long SIGTERM waits for the roles to flush, commit and leave.";
}

/// Keys with free parts: a librdkafka property, a saga name, a step.
pub enum FreeKey<'a> {
    Property(String),
    SagaPolicy(&'a str),
    SagaRetention(&'a str),
    StuckAfter(&'a str),
    /// Of a saga name, of a step.
    Effect(&'a str, &'a str),
}

impl<'a> FreeKey<'a> {
    pub fn of(path: &'a [String]) -> Option<Self> {
        match path {
            [kafka, properties, name @ ..] if kafka == "kafka" && properties == "properties" && !name.is_empty() => {
                Some(Self::Property(name.join(".")))
            }
            [snapshots, saga, name, field] if snapshots == "snapshots" && saga == "saga" => match field.as_str() {
                "policy" => Some(Self::SagaPolicy(name)),
                "retention" => Some(Self::SagaRetention(name)),
                _ => None,
            },
            [stuck, saga, name, field] if stuck == "stuck" && saga == "saga" && field == "after" => Some(Self::StuckAfter(name)),
            [saga, name, effects, step] if saga == "saga" && effects == "effects" => Some(Self::Effect(name, step)),
            _ => None,
        }
    }

    /// The key as errors and `config show` name it.
    pub fn name(&self) -> String {
        match self {
            Self::Property(name) => property_key(name),
            Self::SagaPolicy(name) => saga_key(name, "policy"),
            Self::SagaRetention(name) => saga_key(name, "retention"),
            Self::StuckAfter(name) => stuck_key(name),
            Self::Effect(name, step) => effect_key(name, step),
        }
    }

    pub fn read(&self, config: &mut Config, value: &Value) -> Result<(), String> {
        match self {
            Self::Property(name) => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
                    _ => return Err("must be text, a number, or true or false".into()),
                };
                config.kafka.properties.insert(name.clone(), text);
            }
            Self::SagaPolicy(name) => saga(config, name).policy = Some(Choice::read(value)?),
            Self::SagaRetention(name) => saga(config, name).retention = Some(DurationValue::read(value)?),
            Self::StuckAfter(name) => drop(config.stuck.saga.insert((*name).to_owned(), DurationValue::read(value)?)),
            Self::Effect(name, step) => {
                let effect: String = TextValue::read(value)?;
                if effect.trim().is_empty() {
                    return Err("must say what the step does, such as \"charges the card\"".into());
                }
                let saga = config.saga.entry((*name).to_owned()).or_default();
                saga.effects.insert((*step).to_owned(), effect);
            }
        }
        Ok(())
    }
}

fn saga<'a>(config: &'a mut Config, name: &str) -> &'a mut SnapshotOverride {
    config.snapshots.saga.entry(name.to_owned()).or_default()
}

fn property_key(name: &str) -> String {
    format!("kafka.properties.\"{name}\"")
}

fn saga_key(name: &str, field: &str) -> String {
    format!("snapshots.saga.{}.{field}", Value::String(name.to_owned()))
}

fn stuck_key(name: &str) -> String {
    format!("stuck.saga.{}.after", Value::String(name.to_owned()))
}

fn effect_key(name: &str, step: &str) -> String {
    let [name, step] = [name, step].map(|part| Value::String(part.to_owned()));
    format!("saga.{name}.effects.{step}")
}

/// Every key with a value, also those with free parts.
pub fn all(config: &Config) -> Vec<(String, Value)> {
    let mut values: Vec<_> = SETTINGS.iter().map(|setting| (setting.key.to_owned(), (setting.write)(config))).collect();
    values.extend(config.kafka.properties.iter().map(|(name, value)| (property_key(name), Value::String(value.clone()))));
    for (name, saga) in &config.snapshots.saga {
        values.extend(saga.policy.map(|policy| (saga_key(name, "policy"), Choice::write(&policy))));
        values.extend(saga.retention.map(|retention| (saga_key(name, "retention"), DurationValue::write(&retention))));
    }
    values.extend(config.stuck.saga.iter().map(|(name, after)| (stuck_key(name), DurationValue::write(after))));
    for (name, saga) in &config.saga {
        values.extend(saga.effects.iter().map(|(step, effect)| (effect_key(name, step), Value::String(effect.clone()))));
    }
    values
}
