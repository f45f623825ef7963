//! From file, environment and flags to a checked [`Config`]; the only reader of the environment.
//!
//! Every problem is found in one go and named by its place (file with line and column, variable, flag) and key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::sections::Config;
use super::settings::{FreeKey, SETTINGS, all};
use super::{check, redact};
use crate::error::{Error, Result};
use crate::nearest::nearest;

/// Read when neither a flag nor `RESAGA_CONFIG` names a file and it is there.
const DEFAULT_FILE: &str = "resaga.toml";
const PREFIX: &str = "RESAGA__";

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Variables by name, as [`environment`] gives them; others than `RESAGA__...` are passed over.
    pub environment: Vec<(String, String)>,
    /// `section.name` and its value, as the environment writes values.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The file: the one given, else the one `RESAGA_CONFIG` names, else `resaga.toml` here if there is one.
    pub fn gather(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let environment = environment();
        let named =
            || environment.iter().find(|(name, value)| name == "RESAGA_CONFIG" && !value.is_empty()).map(|(_, v)| v.into());
        let here = || Path::new(DEFAULT_FILE).exists().then(|| DEFAULT_FILE.into());
        Self { file: file.or_else(named).or_else(here), environment, flags }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// `resaga.toml:3:1`.
    File(String),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(place) => f.write_str(place),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A checked configuration that knows where each value came from.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    pub config: Config,
    origins: BTreeMap<String, Origin>,
}

/// A key with its value as it may be shown, in TOML.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownSetting {
    pub key: String,
    pub value: Value,
    pub origin: Origin,
}

impl LoadedConfig {
    /// Every key; secrets are hidden.
    pub fn show(&self) -> Vec<ShownSetting> {
        let shown = |(key, value): (String, Value)| ShownSetting {
            value: redact::value(&key, value),
            origin: self.origins.get(&key).cloned().unwrap_or(Origin::Default),
            key,
        };
        all(&self.config).into_iter().map(shown).collect()
    }
}

/// All variables of this process.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())).collect()
}

/// Where the system wants files that nobody keeps.
pub fn temporary_directory() -> PathBuf {
    std::env::temp_dir()
}

/// `RESAGA_CRASH_AT=name[:n]`, for tests: the named point at which the process dies, and at which pass (1: the first).
pub fn crash_point(environment: &[(String, String)]) -> Option<(String, u32)> {
    let (_, value) = environment.iter().find(|(name, value)| name == "RESAGA_CRASH_AT" && !value.is_empty())?;
    let (name, nth) = value.split_once(':').unwrap_or((value, "1"));
    Some((name.to_owned(), nth.parse().unwrap_or(1)))
}

/// `user@host` of whoever runs this process, for `requested_by`.
pub fn person(environment: &[(String, String)]) -> String {
    let variable = |names: &[&str]| {
        names.iter().find_map(|name| environment.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, value)| value.clone()))
    };
    let host =
        || std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let user = variable(&["USER", "LOGNAME", "USERNAME"]).unwrap_or_else(|| "unknown".into());
    format!("{user}@{}", variable(&["HOSTNAME", "COMPUTERNAME"]).or_else(host).unwrap_or_else(|| "localhost".into()))
}

/// Flags beat environment beats file beats default. An error lists every problem, one a line.
pub fn load(sources: &Sources) -> Result<LoadedConfig> {
    let mut loading = Loading::default();
    if let Some(file) = &sources.file {
        let text = std::fs::read_to_string(file).map_err(|e| invalid(format!("{}: cannot be read: {e}", file.display())))?;
        loading.file(file, &text);
    }
    for (name, value) in &sources.environment {
        if let Some(key) = name.strip_prefix(PREFIX) {
            loading.text(&path_of_variable(key), value, name.clone(), Origin::Environment(name.clone()));
        }
    }
    for (key, value) in &sources.flags {
        let path: Vec<String> = match key.strip_prefix("kafka.properties.") {
            Some(property) => vec!["kafka".into(), "properties".into(), property.into()],
            None => key.split('.').map(str::to_owned).collect(),
        };
        loading.text(&path, value, format!("--setting {key}"), Origin::Flag);
    }
    loading.finish()
}

fn invalid(message: String) -> Error {
    Error::invalid("config_invalid", message)
}

/// `KAFKA__PROPERTIES__SESSION_TIMEOUT_MS` -> `kafka`, `properties`, `session.timeout.ms`.
fn path_of_variable(key: &str) -> Vec<String> {
    let parts: Vec<&str> = key.split("__").collect();
    let lower = |part: &&str| part.to_ascii_lowercase();
    match parts.as_slice() {
        [kafka, properties, name @ ..] if lower(kafka) == "kafka" && lower(properties) == "properties" => {
            vec!["kafka".into(), "properties".into(), name.join("__").to_ascii_lowercase().replace('_', ".")]
        }
        // Names of sagas and steps keep their case.
        [saga, name, effects, step] if lower(saga) == "saga" && lower(effects) == "effects" => {
            vec![lower(saga), (*name).into(), lower(effects), (*step).into()]
        }
        [snapshots, saga, name, field] if lower(saga) == "saga" => {
            vec![lower(snapshots), lower(saga), (*name).into(), lower(field)]
        }
        _ => parts.iter().map(lower).collect(),
    }
}

#[derive(Default)]
struct Loading {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<String>,
}

impl Loading {
    fn file(&mut self, file: &Path, text: &str) {
        let place = |at: usize| {
            let before = &text[..at.min(text.len())];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            format!("{}:{}:{}", file.display(), before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        };
        match DeTable::parse(text) {
            // The library's own text would quote the line, which may hold a secret.
            Err(e) => self.problems.push(format!("{}: {}", place(e.span().map_or(0, |span| span.start)), e.message())),
            Ok(table) => self.table(&mut Vec::new(), table.get_ref(), &place),
        }
    }

    fn table(&mut self, path: &mut Vec<String>, table: &DeTable<'_>, place: &dyn Fn(usize) -> String) {
        for (name, value) in table {
            path.push(name.get_ref().to_string());
            let at = place(name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() => self.table(path, inner, place),
                DeValue::Table(_) if is_section(path) => {}
                other => match value_of(other) {
                    Ok(value) => self.set(path, &value, at.clone(), Origin::File(at)),
                    Err(message) => self.problems.push(format!("{at}: {}: {message}", path.join("."))),
                },
            }
            path.pop();
        }
    }

    fn text(&mut self, path: &[String], text: &str, place: String, origin: Origin) {
        let key = path.join(".");
        let value = match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => (setting.of_text)(text),
            None => Value::String(text.to_owned()),
        };
        self.set(path, &value, place, origin);
    }

    fn set(&mut self, path: &[String], value: &Value, place: String, origin: Origin) {
        let joined = path.join(".");
        let (key, done) = if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == joined) {
            (joined, (setting.read)(&mut self.config, value))
        } else if let Some(key) = FreeKey::of(path) {
            (key.name(), key.read(&mut self.config, value))
        } else if is_section(path) {
            self.problems.push(format!("{place}: {joined} is a section, not a key"));
            return;
        } else {
            self.problems.push(format!("{place}: unknown key {joined}{}", suggestion(&joined)));
            return;
        };
        match done {
            Ok(()) => drop(self.origins.insert(key, origin)),
            Err(message) => self.problems.push(format!("{place}: {key} {message}")),
        }
    }

    fn finish(mut self) -> Result<LoadedConfig> {
        // Rules over wrong values would only repeat what was said.
        if self.problems.is_empty() {
            for (key, message) in check::check(&self.config) {
                let origin = self.origins.get(key).unwrap_or(&Origin::Default);
                self.problems.push(format!("{origin}: {key} {message}"));
            }
        }
        if self.problems.is_empty() {
            return Ok(LoadedConfig { config: self.config, origins: self.origins });
        }
        Err(invalid(self.problems.join("\n")))
    }
}

/// Is it a table that may be written, though it has no value itself?
fn is_section(path: &[String]) -> bool {
    let prefix = format!("{}.", path.join("."));
    prefix == "kafka.properties."
        || ["snapshots.saga.", "stuck.saga.", "saga."].iter().any(|of| prefix.starts_with(of)) && path.len() <= 3
        || SETTINGS.iter().any(|setting| setting.key.starts_with(&prefix))
}

fn suggestion(key: &str) -> String {
    let known = SETTINGS.iter().map(|setting| setting.key).chain(["kafka.properties", "snapshots.saga", "stuck.saga", "saga"]);
    match nearest(key, known) {
        Some((best, near)) if near >= 0.5 => format!("; did you mean {best}?"),
        _ => "; `resaga config init` prints every key".into(),
    }
}

/// The value without its place in the file.
fn value_of(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| "is too large a number")?)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| "is no number")?),
        DeValue::Boolean(switch) => Value::Boolean(*switch),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| value_of(item.get_ref())).collect::<Result<_, _>>()?),
        DeValue::Table(_) => Value::Table(toml::Table::new()),
    })
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
