//! Names that serde_json uses in its own data model are names like all others wherever text of users goes.

use crate::saga::context;
use crate::saga::event::{ContextChange, Kind, StepEvent};
use crate::saga::json::Json;
use crate::saga::json_patch;
use crate::saga::patch;
use crate::saga::request::Override;
use crate::saga::testing::Log;
use crate::wire::avro::{SchemaId, SchemaRef, Schemas, texts};
use crate::wire::event::{decode_event, encode_event};
use crate::wire::{frame, restored};

const NAMES: [&str; 2] = ["$serde_json::private::Number", "$serde_json::private::RawValue"];

fn json(text: impl Into<String>) -> Json {
    Json::from_valid(text.into())
}

fn read(text: &str) -> StepEvent {
    decode_event(Some(b"order-1"), Some(text.as_bytes()), &[], 1 << 20, &Schemas::new(false)).unwrap()
}

/// A step and context members of that name, at the top and below.
fn events(name: &str) -> [StepEvent; 3] {
    let start = format!(r#""kind":"SAGA_STARTED","context":{{"{name}":"1","a":{{"{name}":[{{"{name}":1.10}}]}}}}"#);
    let step = format!(r#""kind":"STEP_STARTED","step":"{name}","context_patch":{{"a":{{"{name}":{{"{name}":"x"}}}}}}"#);
    let done = format!(r#""kind":"STEP_COMPLETED","step":"{name}","result":{{"{name}":"[1]"}},"context_set":{{"{name}":null}}"#);
    [start, step, done]
        .map(|members| read(&format!(r#"{{"event_id":"{}","saga_id":"order-1","saga_name":"n",{members}}}"#, members.len())))
}

#[test]
fn they_go_through_events_the_fold_and_frames() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::STEP_EVENT).unwrap();
    for name in NAMES {
        let events = events(name);
        for event in &events {
            for schema in [None, Some(SchemaId(1))] {
                let value = encode_event(event, schema).unwrap();
                assert_eq!(decode_event(Some(b"order-1"), Some(&value), &[], 1 << 20, &schemas).as_ref(), Ok(event));
            }
        }
        let log = Log::of(events);
        let state = log.state();
        assert_eq!(state.context, json(format!(r#"{{"{name}":null,"a":{{"{name}":{{"{name}":"x"}}}}}}"#)));
        assert_eq!(
            (state.completed_steps.clone(), state.results.clone()),
            (vec![name.to_owned()], vec![(name.to_owned(), json(format!(r#"{{"{name}":"[1]"}}"#)))])
        );
        let saga = log.saga.clone().unwrap();
        let mut without_context = saga.clone();
        without_context.state.context = Json::empty_object();
        assert_eq!(frame::decode_saga(&frame::encode_saga(&saga)), Ok(without_context));
        let entry = log.entries.last().unwrap();
        let member = frame::encode_member(entry, 0, None, Some(&saga));
        let stored = frame::decode_member(&entry.event.saga_id, &member).unwrap();
        assert_eq!((&stored.entry, &stored.saga.unwrap().state), (entry, state));
    }
}

#[test]
fn they_go_through_restored_sagas() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::RESTORED_SAGA).unwrap();
    for name in NAMES {
        let mut saga = crate::wire::testing::one_restored();
        saga.results = vec![(name.into(), json(format!(r#"{{"{name}":1}}"#)))];
        saga.attempts = vec![(name.into(), 2)];
        saga.context = Some(json(format!(r#"{{"{name}":"1"}}"#)));
        assert_eq!(restored::decode_json(restored::encode_json(&saga).as_bytes()).as_ref(), Ok(&saga));
        let value = restored::encode_restored(&saga, Some(SchemaId(1))).unwrap();
        assert_eq!(restored::decode_restored(Some(&value), &[], &schemas), Ok(saga));
    }
}

#[test]
fn they_go_through_differences_and_overrides() {
    for name in NAMES {
        let before = json(format!(r#"{{"{name}":"1","keep":{{"{name}":"2"}}}}"#));
        let after = json(format!(r#"{{"{name}":{{"{name}":"3"}},"keep":{{"{name}":"2"}}}}"#));
        let inner = json(format!(r#"{{"{name}":{{"{name}":"3"}}}}"#));
        assert_eq!(patch::changed_pointers(&before, &after), [format!("/{name}")]);
        let operations = patch::diff(&before, &after);
        assert_eq!(operations.to_string(), format!(r#"[{{"op":"replace","path":"/{name}","value":{{"{name}":"3"}}}}]"#));
        assert_eq!(json_patch::apply(&before, &Json::from_value(&operations)), Ok(after.clone()));
        assert_eq!(patch::apply_override(&before, &Override::Merge(inner.clone())), Ok(after.clone()));
        assert_eq!(patch::apply_override(&before, &Override::Shallow(inner)), Ok(after.clone()));
        assert_eq!(patch::apply_override(&before, &Override::Replace(after.clone())), Ok(after.clone()));
        assert_eq!(context::changed_context(&before, &ContextChange::Full(after.clone())), Some(after));
    }
}

#[test]
fn a_step_is_named_so_in_every_kind() {
    let text = |kind: Kind| {
        format!(r#"{{"event_id":"e","saga_id":"order-1","saga_name":"n","kind":"{}","step":"{}"}}"#, kind.as_str(), NAMES[0])
    };
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::SagaRestored) {
        assert_eq!(read(&text(kind)).step.as_deref(), Some(NAMES[0]));
    }
}
