//! The table of every key: its place in [`Config`] and how its value is written. Loading, showing and the commented
//! default file all go by it.

use toml::Value;

use super::sections::{Config, SnapshotOverride};
use super::units::{Choice, Count, DurationValue, List, Rate, Size, Switch, TextValue, ValueKind};

/// One key.
pub struct Setting {
    /// `section.name`.
    pub key: &'static str,
    pub read: fn(&mut Config, &Value) -> Result<(), String>,
    pub write: fn(&Config) -> Value,
    pub of_text: fn(&str) -> Value,
}

macro_rules! settings {
    ($($section:ident.$name:ident: $kind:ty;)*) => {
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: concat!(stringify!($section), ".", stringify!($name)),
            read: |config, value| <$kind>::read(value).map(|value| config.$section.$name = value),
            write: |config| <$kind>::write(&config.$section.$name),
            of_text: |text| of_text::<$kind, _>(text, |config| &config.$section.$name),
        }),*];
    };
}

/// Names the field so that a kind of several types is settled by it.
fn of_text<K: ValueKind<T>, T>(text: &str, _field: fn(&Config) -> &T) -> Value {
    K::of_text(text)
}

settings! {
    kafka.brokers: TextValue;
    kafka.group_id: TextValue;
    kafka.instance: TextValue;
    topics.events: List;
    topics.requests: TextValue;
    topics.restored: TextValue;
    topics.log: TextValue;
    topics.dead_letters: TextValue;
    topics.restored_allowed: List;
    topics.partitions: Count;
    topics.replication: Count;
    topics.partitioner: Choice;
    hot.url: TextValue;
    hot.ttl: DurationValue;
    hot.pipeline_bytes: Size;
    hot.timeout: DurationValue;
    cold.url: TextValue;
    cold.endpoint: TextValue;
    cold.region: TextValue;
    cold.path_style: Switch;
    cold.flush_interval: DurationValue;
    cold.flush_bytes: Size;
    cold.buffer_bytes: Size;
    cold.cache_bytes: Size;
    cold.timeout: DurationValue;
    snapshots.policy: Choice;
    snapshots.retention: DurationValue;
    limits.max_clock_ahead: DurationValue;
    limits.max_record: Size;
    limits.max_state: Size;
    limits.max_cached_sagas: Count;
    limits.max_intake_bytes: Size;
    replay.max_depth: Count;
    replay.rate: Rate;
    replay.max_batch_requests: Count;
    replay.max_parked_requests: Count;
    replay.max_log_records: Count;
    registry.url: TextValue;
    api.listen: TextValue;
    api.hosts: List;
    api.max_connections: Count;
    api.peer_timeout: DurationValue;
    log.format: Choice;
    log.level: TextValue;
    serve.shutdown_timeout: DurationValue;
}

/// Keys whose last parts are free: a librdkafka property, a saga name.
pub enum FreeKey<'a> {
    Property(String),
    SagaPolicy(&'a str),
    SagaRetention(&'a str),
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
            _ => None,
        }
    }

    /// The key as errors and `config show` name it.
    pub fn name(&self) -> String {
        match self {
            Self::Property(name) => property_key(name),
            Self::SagaPolicy(name) => saga_key(name, "policy"),
            Self::SagaRetention(name) => saga_key(name, "retention"),
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

/// Every key with a value, also those with free parts.
pub fn all(config: &Config) -> Vec<(String, Value)> {
    let mut values: Vec<_> = SETTINGS.iter().map(|setting| (setting.key.to_owned(), (setting.write)(config))).collect();
    values.extend(config.kafka.properties.iter().map(|(name, value)| (property_key(name), Value::String(value.clone()))));
    for (name, saga) in &config.snapshots.saga {
        values.extend(saga.policy.map(|policy| (saga_key(name, "policy"), Choice::write(&policy))));
        values.extend(saga.retention.map(|retention| (saga_key(name, "retention"), DurationValue::write(&retention))));
    }
    values
}
