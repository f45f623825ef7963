use std::path::Path;

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;

use super::texts;

const OURS: [(&str, &str); 4] = [
    ("StepEvent", texts::STEP_EVENT),
    ("ReplayRequest", texts::REPLAY_REQUEST),
    ("RestoredSaga", texts::RESTORED_SAGA),
    ("ReplayLogEntry", texts::REPLAY_LOG_ENTRY),
];

fn versions(name: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/history").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        stem.strip_prefix('v').unwrap().parse::<u32>().unwrap()
    });
    files.into_iter().map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_schema_can_be_exchanged_with_every_version_ever_checked_in() {
    for (name, text) in OURS {
        let now = Schema::parse_str(text).unwrap();
        for (path, old) in versions(name) {
            let old = Schema::parse_str(&old).unwrap();
            assert!(SchemaCompatibility::can_read(&old, &now).is_ok(), "{name} cannot read {path}");
            // Requests are written by others, who may be behind: BACKWARD_TRANSITIVE is enough.
            if name != "ReplayRequest" {
                assert!(SchemaCompatibility::can_read(&now, &old).is_ok(), "{path} cannot read {name}");
            }
        }
    }
}

#[test]
fn the_newest_version_in_the_history_is_the_schema_in_use() {
    for (name, text) in OURS {
        assert_eq!(versions(name).pop().unwrap().1, text, "copy {name}.avsc to the next version in schemas/history/{name}");
    }
}

#[test]
fn the_restored_saga_is_the_same_in_both_schemas_that_have_it() {
    let alone = super::Shape::restored_saga();
    let member = &super::Shape::step_event().field("restored").unwrap().shape;
    assert!(member.admits(alone));
}

#[test]
fn every_enum_can_be_read_by_who_knows_fewer_symbols() {
    fn enums(value: &serde_json::Value) {
        if value["type"] == "enum" {
            assert_eq!((&value["default"], &value["symbols"][0]), (&"UNKNOWN".into(), &"UNKNOWN".into()));
        }
        match value {
            serde_json::Value::Object(members) => members.values().for_each(enums),
            serde_json::Value::Array(elements) => elements.iter().for_each(enums),
            _ => {}
        }
    }
    for (_, text) in OURS {
        enums(&serde_json::from_str(text).unwrap());
    }
}
