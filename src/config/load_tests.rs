use std::io::Write;
use std::time::Duration;

use super::super::{LogFormat, PartitionerSetting};
use super::*;
use crate::saga::fold_settings::SnapshotPolicy;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn from_file(text: &str) -> Result<LoadedConfig> {
    let file = file(text);
    load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
}

fn from_environment(variables: &[(&str, &str)]) -> Result<LoadedConfig> {
    let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    load(&Sources { environment, ..Sources::default() })
}

fn message(result: Result<LoadedConfig>) -> String {
    let error = result.expect_err("refused");
    assert_eq!(error.code(), "config_invalid");
    error.to_string()
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = file("[kafka]\nbrokers = \"file:1\"\ngroup_id = \"file\"\ninstance = \"file\"\n");
    let loaded = load(&Sources {
        file: Some(file.path().to_owned()),
        environment: vec![("RESAGA__KAFKA__BROKERS".into(), "env:1".into()), ("RESAGA__KAFKA__GROUP_ID".into(), "env".into())],
        flags: vec![("kafka.brokers".into(), "flag:1".into())],
    })
    .expect("loaded");
    let kafka = &loaded.config.kafka;
    assert_eq!((kafka.brokers.as_str(), kafka.group_id.as_str(), kafka.instance.as_str()), ("flag:1", "env", "file"));
    let origin = |key: &str| loaded.show().into_iter().find(|shown| shown.key == key).expect("shown").origin;
    assert_eq!(origin("kafka.brokers"), Origin::Flag);
    assert_eq!(origin("kafka.group_id"), Origin::Environment("RESAGA__KAFKA__GROUP_ID".into()));
    assert_eq!(origin("kafka.instance"), Origin::File(format!("{}:4:1", file.path().display())));
    assert_eq!(origin("hot.url"), Origin::Default);
}

#[test]
fn every_kind_of_value_is_read_from_the_environment() {
    let config = from_environment(&[
        ("RESAGA__TOPICS__EVENTS", "a,b"),
        ("RESAGA__TOPICS__PARTITIONS", "3"),
        ("RESAGA__TOPICS__PARTITIONER", "crc32"),
        ("RESAGA__COLD__PATH_STYLE", "true"),
        ("RESAGA__COLD__FLUSH_INTERVAL", "250ms"),
        ("RESAGA__COLD__FLUSH_BYTES", "64KiB"),
        ("RESAGA__REPLAY__RATE", "10/s"),
        ("RESAGA__LOG__FORMAT", "json"),
        ("RESAGA__KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "6000"),
        ("RESAGA__SNAPSHOTS__SAGA__Orders__POLICY", "every_event"),
        ("RESAGA_SERVER", "not a setting"),
    ])
    .expect("loaded")
    .config;
    assert_eq!(config.topics.events, ["a", "b"]);
    assert_eq!(config.topics.partitions, 3);
    assert_eq!(config.topics.partitioner, PartitionerSetting::Crc32);
    assert!(config.cold.path_style);
    assert_eq!(config.cold.flush_interval, Duration::from_millis(250));
    assert_eq!(config.cold.flush_bytes, 65_536);
    assert_eq!(config.replay.rate, Some(10.0));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.kafka.properties["session.timeout.ms"], "6000");
    assert_eq!(config.snapshots.saga["Orders"].policy, Some(SnapshotPolicy::EveryEvent));
}

#[test]
fn properties_may_be_quoted_or_nested_and_of_any_simple_type() {
    let text = "[kafka.properties]\n\"linger.ms\" = 5\nenable.idempotence = true\nsecurity.protocol = \"SSL\"\n";
    let properties = from_file(text).expect("loaded").config.kafka.properties;
    let got: Vec<_> = properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(got, [("enable.idempotence", "true"), ("linger.ms", "5"), ("security.protocol", "SSL")]);
}

#[test]
fn an_unknown_key_names_its_place_and_the_closest_key() {
    let said = message(from_file("\n[kafka]\n  borkers = \"x:1\"\n"));
    assert!(said.ends_with(":3:3: unknown key kafka.borkers; did you mean kafka.brokers?"), "{said}");
    let said = message(from_environment(&[("RESAGA__KAFKA__GROUPID", "x")]));
    assert_eq!(said, "RESAGA__KAFKA__GROUPID: unknown key kafka.groupid; did you mean kafka.group_id?");
    let said = message(from_file("[frobnicate]\nx = 1"));
    assert!(said.contains("unknown key frobnicate.x; `resaga config init`"), "{said}");
    let said = message(from_file("[frobnicate]\n"));
    assert!(said.contains("unknown key frobnicate"), "{said}");
    let said = message(from_file("[snapshots.saga.x]\npolcy = \"manual\""));
    assert!(said.contains("unknown key snapshots.saga.x.polcy"), "{said}");
}

#[test]
fn a_wrong_type_names_the_key_and_never_the_value() {
    for (text, key) in [
        ("[hot]\nttl = 30", "hot.ttl must be a duration with its unit"),
        ("[hot]\nttl = \"hunter2\"", "hot.ttl must be a duration with its unit"),
        ("[limits]\nmax_record = 1048576", "limits.max_record must be a size with its unit"),
        ("[topics]\nevents = \"hunter2\"", "topics.events must be a list"),
        ("[topics]\npartitions = \"hunter2\"", "topics.partitions must be a whole number"),
        ("[topics]\npartitions = 12345678901", "topics.partitions must be a whole number from"),
        ("[topics]\npartitioner = \"hunter2\"", "topics.partitioner must be one of auto, murmur2, crc32, fnv1a"),
        ("[cold]\npath_style = 1", "cold.path_style must be true or false"),
        ("[kafka]\nproperties = { a = [1] }", "kafka.properties.\"a\" must be text"),
        ("kafka = 1", "kafka is a section, not a key"),
        ("[hot]\nurl = \"hunter2", ":2:"),
    ] {
        let said = message(from_file(text));
        assert!(said.contains(key), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{text}: {said}");
    }
}

#[test]
fn rules_over_the_whole_are_checked_and_all_told_at_once() {
    let said = message(from_environment(&[
        ("RESAGA__TOPICS__EVENTS", ""),
        ("RESAGA__HOT__TTL", "0s"),
        ("RESAGA__HOT__URL", "http://x"),
        ("RESAGA__COLD__URL", "s3://"),
        ("RESAGA__TOPICS__LOG", "saga.restored.v1"),
        ("RESAGA__API__LISTEN", "8080"),
        ("RESAGA__API__HOSTS", "resaga.example.org,https://resaga.example.org/"),
    ]));
    for line in [
        "RESAGA__TOPICS__EVENTS: topics.events must name at least one topic",
        "RESAGA__HOT__TTL: hot.ttl must be longer than 0s",
        "RESAGA__HOT__URL: hot.url must be a URL",
        "RESAGA__COLD__URL: cold.url must be s3://bucket/prefix",
        "RESAGA__TOPICS__LOG: topics.log must be a topic of its own",
        "RESAGA__API__LISTEN: api.listen must be host:port",
        "RESAGA__API__HOSTS: api.hosts must be names",
    ] {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line} in\n{said}");
    }
}

#[test]
fn secrets_are_hidden_when_shown() {
    let loaded = from_environment(&[
        ("RESAGA__HOT__URL", "redis://me:hunter2@127.0.0.1"),
        ("RESAGA__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ])
    .expect("loaded");
    let shown = loaded.show();
    assert!(!format!("{shown:?}{loaded:?}").contains("hunter2"));
    assert!(shown.iter().any(|shown| shown.key == "kafka.properties.\"sasl.password\""));
}

#[test]
fn the_commented_file_has_every_key_with_its_default() {
    let text = include_str!("../../config/resaga.toml");
    let is_key = |line: &&str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    let uncommented: String =
        text.lines().map(|line| if is_key(&line) { &line[1..] } else { line }).fold(String::new(), |all, line| all + line + "\n");
    let loaded = from_file(&uncommented).expect("the file is right");
    assert_eq!(loaded.config, Config::default());
    for setting in SETTINGS {
        assert!(loaded.origins.contains_key(setting.key), "{} is missing from config/resaga.toml", setting.key);
    }
    assert_eq!(from_file(text).expect("as it is").config, Config::default());
}

#[test]
fn the_person_is_user_at_host() {
    assert_eq!(person(&[("USER".into(), "sam".into()), ("HOSTNAME".into(), "desk".into())]), "sam@desk");
}

#[test]
fn effects_are_declared_by_saga_and_step_whose_names_keep_their_case() {
    let text = "[saga.\"order-processing\".effects]\ncharge_payment = \"charges the card\"\n[saga.\"a.b\".effects]\n";
    let loaded = from_file(text).expect("loaded");
    let expected: BTreeMap<_, _> = [("charge_payment".to_owned(), "charges the card".to_owned())].into();
    assert_eq!(loaded.config.saga["order-processing"].effects, expected);
    let key = "saga.\"order-processing\".effects.\"charge_payment\"";
    assert!(loaded.show().iter().any(|shown| shown.key == key), "config show names it");
    let of_variable = from_environment(&[("RESAGA__SAGA__Order-Processing__EFFECTS__Charge_payment", "charges the card")]);
    assert_eq!(of_variable.expect("loaded").config.saga["Order-Processing"].effects["Charge_payment"], "charges the card");
    for (text, problem) in [
        ("[saga.x.effects]\na = 1", "saga.\"x\".effects.\"a\" must be text"),
        ("[saga.x.effects]\na = \" \"", "must say what the step does"),
        ("[saga.x.effect]\na = \"b\"", "unknown key saga.x.effect.a"),
        ("[saga.x]\neffects = \"b\"", "saga.x.effects is a section"),
    ] {
        let said = message(from_file(text));
        assert!(said.contains(problem), "{text}: {said}");
    }
}
