//! The members of a replay request as flags: where to start, what to change, what to allow.

use clap::{ArgGroup, Args};
use serde_json::{Map, Value, json};

use super::exit::Failure;
use super::times;
use crate::saga::time::Micros;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("start").required(true))]
pub struct Start {
    /// Just before the last attempt of this step.
    #[arg(long, group = "start", value_name = "STEP")]
    from_step: Option<String>,
    /// With --from-step: just before this attempt of it.
    #[arg(long, requires = "from_step")]
    attempt: Option<i64>,
    /// After this step completed.
    #[arg(long, group = "start", value_name = "STEP")]
    after_step: Option<String>,
    /// After the saga's start.
    #[arg(long, group = "start")]
    from_start: bool,
    /// After the newest entry.
    #[arg(long, group = "start")]
    latest: bool,
    /// As of a time: RFC 3339 with a zone, or relative such as -2h.
    #[arg(long, group = "start", allow_hyphen_values = true, value_parser = times::parse)]
    at: Option<Micros>,
    /// After the entry of this sequence.
    #[arg(long, group = "start")]
    sequence: Option<u64>,
    /// After the newest checkpoint of this name.
    #[arg(long, group = "start", value_name = "NAME")]
    checkpoint: Option<String>,
    /// The request's `from` as JSON.
    #[arg(long, group = "start", value_name = "JSON")]
    from: Option<String>,
}

#[derive(Debug, Args)]
pub struct Change {
    /// KEY=TEXT or KEY:=JSON in the context; may repeat. `a.b` and `/a/b` are b inside a; `\.` is a dot.
    #[arg(long, value_name = "KEY=TEXT", conflicts_with_all = ["patch", "jq"])]
    set: Vec<String>,
    /// A JSON merge patch (RFC 7396) of the context: JSON or @FILE.
    #[arg(long, value_name = "JSON|@FILE", conflicts_with_all = ["patch", "jq"])]
    merge: Option<String>,
    /// A JSON patch (RFC 6902) of the context: JSON or @FILE.
    #[arg(long, value_name = "JSON|@FILE")]
    patch: Option<String>,
    /// A jq expression of the context, which must give one object: EXPR or @FILE. `$saga` is the checkpoint's state, `$item`
    /// the saga's member of --overrides.
    #[arg(long, value_name = "EXPR|@FILE", conflicts_with = "patch")]
    jq: Option<String>,
    /// What --set and --merge give replaces top-level keys; null is a value.
    #[arg(long, conflicts_with_all = ["patch", "jq", "replace"])]
    shallow: bool,
    /// What --set and --merge give replaces the whole context.
    #[arg(long, conflicts_with_all = ["patch", "jq"])]
    replace: bool,
}

#[derive(Debug, Args)]
pub struct Terms {
    /// The consumer fails this step instead of running it; without STEP the one it resumes at.
    #[arg(long, value_name = "STEP", num_args = 0..=1)]
    force_failure: Option<Option<String>>,
    #[arg(long, value_parser = ["resume", "compensate"])]
    mode: Option<String>,
    /// Plan and show the difference; publish nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also when the saga still runs.
    #[arg(long)]
    allow_running: bool,
    /// Also when it was replayed before.
    #[arg(long)]
    allow_repeat: bool,
    /// Also when it has completed.
    #[arg(long)]
    allow_completed: bool,
    /// What to do when steps of the checkpoint were compensated since.
    #[arg(long, value_parser = ["refuse", "keep", "rerun"])]
    if_compensated: Option<String>,
    /// The restored saga's version, instead of the checkpoint's.
    #[arg(long)]
    saga_version: Option<String>,
    /// A topic of [topics] restored_allowed.
    #[arg(long, value_name = "TOPIC")]
    target: Option<String>,
    /// Wait until then: RFC 3339 with a zone, or relative such as +5m.
    #[arg(long, allow_hyphen_values = true, value_parser = times::parse)]
    not_before: Option<Micros>,
    /// Refuse from then on.
    #[arg(long, allow_hyphen_values = true, value_parser = times::parse)]
    expires_at: Option<Micros>,
    /// NAME:VALUE on the restored saga; may repeat.
    #[arg(long = "add-label", value_name = "NAME:VALUE")]
    labels: Vec<String>,
}

/// Who asks, and why; of every command that changes something.
#[derive(Debug, Args)]
pub struct Attribution {
    /// Why; kept in the replay log [env: RESAGA_REASON].
    #[arg(long)]
    reason: Option<String>,
    /// Who asks; default: user@host.
    #[arg(long)]
    requested_by: Option<String>,
}

impl Start {
    pub fn to_json(&self) -> Result<Value, Failure> {
        Ok(match self {
            Self { from: Some(text), .. } => json(text, "--from")?,
            Self { from_step: Some(step), attempt: None, .. } => json!({"step": step}),
            Self { from_step: Some(step), attempt: Some(attempt), .. } => json!({"step": step, "attempt": attempt}),
            Self { after_step: Some(step), .. } => json!({"after_step": step}),
            Self { at: Some(at), .. } => json!({"at": at.to_string()}),
            Self { sequence: Some(sequence), .. } => json!({"sequence": sequence}),
            Self { checkpoint: Some(name), .. } => json!({"checkpoint": name}),
            Self { from_start: true, .. } => json!({"start": true}),
            _ => json!({"latest": true}),
        })
    }
}

impl Change {
    /// What is given for each saga of a batch is then a value for it.
    pub fn is_expression(&self) -> bool {
        self.jq.is_some()
    }

    /// The request's `override`; `None`: nothing is changed.
    pub fn to_json(&self) -> Result<Option<Value>, Failure> {
        if let Some(patch) = &self.patch {
            return Ok(Some(one("patch", json_or_file(patch, "--patch")?)));
        }
        if let Some(jq) = &self.jq {
            let expression = match jq.strip_prefix('@') {
                // A format such as @base64 is no expression alone: what begins with @ is a file.
                Some(path) => file(path, "--jq")?,
                None => jq.clone(),
            };
            return Ok(Some(one("jq", expression.into())));
        }
        if self.merge.is_none() && self.set.is_empty() {
            return match self.shallow || self.replace {
                true => Err(Failure::usage("--shallow and --replace need --set or --merge")),
                false => Ok(None),
            };
        }
        let mut document = match &self.merge {
            Some(merge) => json_or_file(merge, "--merge")?,
            None => json!({}),
        };
        for setting in &self.set {
            set(&mut document, setting)?;
        }
        let how = if self.shallow {
            "shallow"
        } else if self.replace {
            "replace"
        } else {
            "merge"
        };
        Ok(Some(one(how, document)))
    }
}

impl Terms {
    /// Are steps to be compensated, and none to run?
    pub fn compensates(&self) -> bool {
        self.mode.as_deref() == Some("compensate")
    }

    /// Members that differ from a request's defaults.
    pub fn add_to(&self, order: &mut Map<String, Value>) -> Result<(), Failure> {
        match &self.force_failure {
            Some(Some(step)) => drop(order.insert("force_failure".into(), json!(step))),
            Some(None) => drop(order.insert("force_failure".into(), json!(true))),
            None => {}
        }
        let switches = [
            ("dry_run", self.dry_run),
            ("allow_running", self.allow_running),
            ("allow_repeat", self.allow_repeat),
            ("allow_completed", self.allow_completed),
        ];
        order.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, on)| (name.into(), json!(on))));
        let texts = [
            ("mode", &self.mode),
            ("if_compensated", &self.if_compensated),
            ("saga_version", &self.saga_version),
            ("target", &self.target),
            ("not_before", &self.not_before.map(|at| at.to_string())),
            ("expires_at", &self.expires_at.map(|at| at.to_string())),
        ];
        order.extend(texts.into_iter().filter_map(|(name, text)| text.as_ref().map(|text| (name.into(), json!(text)))));
        if !self.labels.is_empty() {
            let pair = |label: &String| match label.split_once(':') {
                Some((name, value)) => Ok((name.to_owned(), json!(value))),
                None => Err(Failure::usage("--add-label must be NAME:VALUE")),
            };
            order.insert("labels".into(), Value::Object(self.labels.iter().map(pair).collect::<Result<_, _>>()?));
        }
        Ok(())
    }
}

impl Attribution {
    pub fn add_to(&self, body: &mut Map<String, Value>, environment: &[(String, String)]) -> Result<(), Failure> {
        let reason = self.reason.clone().or_else(|| super::session::variable(environment, "RESAGA_REASON"));
        let reason = reason.ok_or_else(|| Failure::usage("--reason is missing").hint("say why; it is kept in the replay log"))?;
        let who = self.requested_by.clone().unwrap_or_else(|| crate::config::person(environment));
        body.insert("requested_by".into(), json!(who));
        body.insert("reason".into(), json!(reason));
        Ok(())
    }
}

/// An object with one member. Not by `json!`, which writes the numbers of its parts in another form.
pub fn one(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

pub fn json(text: &str, what: &str) -> Result<Value, Failure> {
    super::json::read(text.as_bytes()).map_err(|e| Failure::usage(format!("{what} is not JSON: {e}")))
}

pub fn json_or_file(text: &str, what: &str) -> Result<Value, Failure> {
    match text.strip_prefix('@') {
        Some(path) => json(&file(path, what)?, what),
        None => json(text, what),
    }
}

pub fn file(path: &str, what: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{what}: read {path}: {e}")))
}

/// Puts `KEY=TEXT` or `KEY:=JSON` into a document.
fn set(document: &mut Value, setting: &str) -> Result<(), Failure> {
    let (key, text) = setting.split_once('=').ok_or_else(|| Failure::usage("--set must be KEY=TEXT or KEY:=JSON"))?;
    let (key, value) = match key.strip_suffix(':') {
        Some(key) => (key, json(text, "--set")?),
        None => (key, json!(text)),
    };
    let path = path_of(key);
    let (last, parents) = path.split_last().filter(|_| !key.is_empty()).ok_or_else(|| Failure::usage("--set has no key"))?;
    let mut place = document;
    for parent in parents {
        let members = place.as_object_mut().ok_or_else(|| Failure::usage("--set goes into something that is no object"))?;
        place = members.entry(parent.as_str()).or_insert_with(|| json!({}));
    }
    let members = place.as_object_mut().ok_or_else(|| Failure::usage("--set goes into something that is no object"))?;
    members.insert(last.clone(), value);
    Ok(())
}

/// `a.b`, `a\.b` or the JSON pointer `/a/b`.
fn path_of(key: &str) -> Vec<String> {
    if let Some(pointer) = key.strip_prefix('/') {
        return pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    }
    let mut path = vec![String::new()];
    let mut characters = key.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '.' => path.push(String::new()),
            '\\' if characters.peek() == Some(&'.') => path.iter_mut().last().into_iter().for_each(|part| part.push('.')),
            _ => path.iter_mut().last().into_iter().for_each(|part| part.push(c)),
        }
        if c == '\\' && characters.peek() == Some(&'.') {
            characters.next();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        start: Start,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        terms: Terms,
    }

    fn flags(arguments: &[&str]) -> Result<Flags, clap::Error> {
        Flags::try_parse_from([&["x"], arguments].concat())
    }

    fn change(arguments: &[&str]) -> Option<String> {
        let flags = flags(&[&["--latest"], arguments].concat()).expect("flags");
        flags.change.to_json().expect("override").map(|value| value.to_string())
    }

    #[test]
    fn settings_become_a_merge_that_keeps_number_text() {
        assert_eq!(change(&[]), None);
        assert_eq!(change(&["--set", "token=tok_new"]), Some(r#"{"merge":{"token":"tok_new"}}"#.into()));
        assert_eq!(change(&["--set", "n:=1e3", "--set", "gone:=null"]), Some(r#"{"merge":{"n":1e3,"gone":null}}"#.into()));
        assert_eq!(change(&["--set", "a.b=1", "--set", "/a/c~1d=x"]), Some(r#"{"merge":{"a":{"b":"1","c/d":"x"}}}"#.into()));
        assert_eq!(change(&["--set", r"a\.b=x=y"]), Some(r#"{"merge":{"a.b":"x=y"}}"#.into()));
        assert_eq!(change(&["--merge", r#"{"a":1E5}"#, "--set", "b=2"]), Some(r#"{"merge":{"a":1E5,"b":"2"}}"#.into()));
        assert_eq!(change(&["--shallow", "--set", "a:=null"]), Some(r#"{"shallow":{"a":null}}"#.into()));
        assert_eq!(change(&["--replace", "--merge", "{}"]), Some(r#"{"replace":{}}"#.into()));
        assert_eq!(
            change(&["--patch", r#"[{"op":"add","path":"/a","value":1e3}]"#]),
            Some(r#"{"patch":[{"op":"add","path":"/a","value":1e3}]}"#.into())
        );
        assert_eq!(change(&["--jq", ".a = \"b\""]), Some(r#"{"jq":".a = \"b\""}"#.into()));
        assert!(flags(&["--latest", "--jq", ".", "--set", "a=b"]).is_err());
        assert!(flags(&["--latest", "--jq", ".", "--patch", "[]"]).is_err());
        assert!(flags(&["--latest", "--jq", "@/no/such/file"]).expect("flags").change.to_json().is_err());
        assert!(flags(&["--latest", "--patch", "[]", "--set", "a=b"]).is_err());
        assert!(flags(&["--latest", "--set", "a"]).expect("flags").change.to_json().is_err());
        assert!(flags(&["--latest", "--set", "=b"]).expect("flags").change.to_json().is_err());
    }

    #[test]
    fn a_replay_starts_at_exactly_one_point() {
        for (arguments, from) in [
            (&["--from-step", "charge"][..], r#"{"step":"charge"}"#),
            (&["--from-step", "charge", "--attempt", "2"], r#"{"step":"charge","attempt":2}"#),
            (&["--after-step", "charge"], r#"{"after_step":"charge"}"#),
            (&["--from-start"], r#"{"start":true}"#),
            (&["--latest"], r#"{"latest":true}"#),
            (&["--at", "2026-01-10T10:00:00Z"], r#"{"at":"2026-01-10T10:00:00.000000Z"}"#),
            (&["--sequence", "4"], r#"{"sequence":4}"#),
            (&["--checkpoint", "paid"], r#"{"checkpoint":"paid"}"#),
            (&["--from", r#"{"step":"x"}"#], r#"{"step":"x"}"#),
        ] {
            assert_eq!(flags(arguments).expect("flags").start.to_json().expect("from").to_string(), from);
        }
        assert!(flags(&[]).is_err());
        assert!(flags(&["--latest", "--from-start"]).is_err());
    }

    #[test]
    fn only_terms_that_were_given_are_sent() {
        let terms = |arguments: &[&str]| {
            let mut order = Map::new();
            flags(&[&["--latest"], arguments].concat()).expect("flags").terms.add_to(&mut order).expect("terms");
            Value::Object(order).to_string()
        };
        assert_eq!(terms(&[]), "{}");
        assert_eq!(terms(&["--force-failure"]), r#"{"force_failure":true}"#);
        assert_eq!(terms(&["--force-failure", "ship", "--dry-run"]), r#"{"force_failure":"ship","dry_run":true}"#);
        assert_eq!(terms(&["--add-label", "a:b:c"]), r#"{"labels":{"a":"b:c"}}"#);
    }
}
