//! Secrets stay out of sight: passwords in URLs and librdkafka's secret properties, in `config show` and in `Debug`.

use std::fmt;

use toml::Value;

use super::sections::{ColdConfig, HotConfig, KafkaConfig, RegistryConfig};

const HIDDEN: &str = "***";

/// The URL without its password. All up to the last `@` is taken for user and password: a password may hold a `/`.
pub fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((login, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    let shown = match login.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}"),
        None => HIDDEN.to_owned(),
    };
    format!("{scheme}://{shown}@{host}")
}

/// The value of a librdkafka property, unless it is a secret.
pub fn property<'a>(name: &str, value: &'a str) -> &'a str {
    let secret = ["password", "secret", ".pem", "jaas", "oauthbearer.config", "token"].iter().any(|word| name.contains(word));
    if secret { HIDDEN } else { value }
}

/// The value of a key as it may be shown.
pub fn value(key: &str, value: Value) -> Value {
    match (key, value) {
        ("hot.url" | "cold.url" | "cold.endpoint" | "registry.url", Value::String(text)) => Value::String(url(&text)),
        (key, Value::String(text)) if key.starts_with("kafka.properties.") => Value::String(property(key, &text).to_owned()),
        (_, value) => value,
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: Vec<_> = self.properties.iter().map(|(name, value)| (name, property(name, value))).collect();
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("group_id", &self.group_id)
            .field("instance", &self.instance)
            .field("properties", &properties)
            .finish()
    }
}

impl fmt::Debug for HotConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, ttl, pipeline_bytes, timeout } = self;
        f.debug_struct("Hot")
            .field("url", &url(&self.url))
            .field("ttl", ttl)
            .field("pipeline_bytes", pipeline_bytes)
            .field("timeout", timeout)
            .finish()
    }
}

impl fmt::Debug for ColdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cold")
            .field("url", &url(&self.url))
            .field("endpoint", &self.endpoint.as_deref().map(url))
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("flush_interval", &self.flush_interval)
            .field("flush_bytes", &self.flush_bytes)
            .field("buffer_bytes", &self.buffer_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("url", &url(&self.url)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::url;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(url("redis://:pw@h:6379/0"), "redis://:***@h:6379/0");
        assert_eq!(url("rediss://me:p@ss/w:rd@h:6379"), "rediss://me:***@h:6379");
        assert_eq!(url("http://token@registry"), "http://***@registry");
        assert_eq!(url("redis://127.0.0.1:6379/0"), "redis://127.0.0.1:6379/0");
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut config = Config::default();
        config.hot.url = "redis://me:s3cret@h".into();
        config.registry.url = "http://me:s3cret@h".into();
        config.cold.endpoint = Some("http://me:s3cret@h".into());
        config.kafka.properties.insert("sasl.password".into(), "s3cret".into());
        config.kafka.properties.insert("sasl.username".into(), "visible".into());
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("visible"), "{shown}");
    }
}
