use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::saga::time::Micros;
use crate::wire::avro::{SchemaRef, texts};
use crate::wire::testing;

const MAX: u64 = 1 << 20;

fn decode(key: &str, value: &str) -> Result<StepEvent, NotDecoded> {
    decode_event(Some(key.as_bytes()), Some(value.as_bytes()), &[], MAX, &Schemas::new(false))
}
fn code(result: Result<StepEvent, NotDecoded>) -> (&'static str, String) {
    match result {
        Err(NotDecoded::DeadLetter { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}
fn event(members: &str) -> String {
    format!(r#"{{"event_id":"e","saga_id":"s","saga_name":"n","kind":"SAGA_STARTED"{members}}}"#)
}

#[test]
fn what_is_optional_may_be_missing_or_null_and_what_is_unknown_is_ignored() {
    let decoded = decode("s", &event(r#","occurred_at":null,"step":null,"labels":null,"new_field":[1]"#)).unwrap();
    assert_eq!((decoded.occurred_at, decoded.step, decoded.labels), (None, None, None));
    assert_eq!(decoded.context, ContextChange::None);
}

#[test]
fn texts_are_kept_as_they_came() {
    let context = r#"{"z":1.10, "a":12345678901234567890,"\u0061\u0301":"é"}"#;
    let text = event(&format!(r#","context":{context},"result": [1.0 ,2],"occurred_at":"2026-01-10T11:00:00.0000019+01:00""#));
    let decoded = decode("s", &text).unwrap();
    assert_eq!(decoded.context, ContextChange::Full(Json::from_valid(context)));
    assert_eq!(decoded.result, Some(Json::from_valid("[1.0 ,2]")));
    assert_eq!(decoded.occurred_at, Some(Micros(1_768_039_200_000_001)));
}

#[test]
fn each_bad_record_has_its_code_and_names_the_field_without_its_value() {
    let long = "x".repeat(257);
    let with_long = event("").replace("\"s\"", &format!("\"{long}\""));
    let cases = [
        ("s", "[1]".to_owned(), "undecodable", "JSON object"),
        ("s", "{\"a\":".to_owned(), "undecodable", "byte 5"),
        ("s", event(r#","x":"\ud800""#), "undecodable", "lone surrogate"),
        ("s", event(&format!(r#","x":{}{}"#, "[".repeat(128), "]".repeat(128))), "undecodable", "nested too deep"),
        ("s", event("").replace("\"e\"", "\"\""), "invalid_event", "\"event_id\" is empty"),
        ("s", event("").replace("\"e\"", "null"), "invalid_event", "\"event_id\" is missing"),
        ("s", event("").replace("SAGA_STARTED", "SECRET"), "invalid_event", "\"kind\""),
        ("s", event("").replace("SAGA_STARTED", "STEP_FAILED"), "invalid_event", "\"step\" is missing"),
        ("s", event(r#","attempt":2.0"#), "invalid_event", "\"attempt\""),
        ("s", event(r#","sequence":-1"#), "invalid_event", "\"sequence\""),
        ("s", event(r#","sequence":9223372036854775808"#), "invalid_event", "\"sequence\""),
        ("s", event(r#","occurred_at":"2026-01-10T10:00:00""#), "invalid_event", "\"occurred_at\""),
        ("s", event(r#","context":[]"#), "invalid_event", "\"context\" is not an object"),
        ("s", event(r#","context":{},"context_set":{}"#), "invalid_event", "at most one"),
        ("s", event(r#","error":{"code":7}"#), "invalid_event", "\"error.code\" is not a string"),
        ("s", event(r#","labels":{"SECRET":1}"#), "invalid_event", "\"labels\" is not an object of strings"),
        (&long, with_long, "invalid_event", "longer than 256"),
        ("s", event("").replace("SAGA_STARTED", "SAGA_RESTORED"), "invalid_event", "\"restored\" is missing"),
        ("t", event(""), "key_mismatch", "saga_id"),
        ("s", event(&format!(r#","x":"{}""#, "y".repeat(1 << 20))), "too_large", "max_record"),
    ];
    for (key, value, wanted, says) in cases {
        let (code, message) = code(decode(key, &value));
        assert_eq!(code, wanted, "{message}");
        assert!(message.contains(says) && !message.contains("SECRET"), "{message}");
    }
    let good = event("");
    let limits = |key: Option<&[u8]>, value: Option<&[u8]>| code(decode_event(key, value, &[], MAX, &Schemas::new(false))).0;
    assert_eq!(limits(Some(b"s"), None), "undecodable");
    assert_eq!(limits(None, Some(good.as_bytes())), "key_mismatch");
    assert_eq!(limits(Some(b"s"), Some(b"\0\0\0\0\x07abc")), "unknown_schema");
    assert_eq!(limits(Some(b"s"), Some(&[b' '; 4 << 20])), "too_large");
}

#[test]
fn depth_128_is_an_event() {
    let nested = |n: usize| event(&format!(r#","context":{{"a":{}{}}}"#, "[".repeat(n), "]".repeat(n)));
    assert!(decode("s", &nested(126)).is_ok());
    assert_eq!(code(decode("s", &nested(127))).0, "undecodable");
}

#[test]
fn a_schema_not_yet_known_is_asked_for_by_id_or_by_guid() {
    let schemas = Schemas::new(true);
    let guid = Uuid::from_u128(7);
    let header = |bytes: Vec<u8>| vec![("__value_schema_id".to_owned(), Some(Bytes::from(bytes)))];
    let need = |value: &[u8], headers: &RecordHeaders| decode_event(Some(b"s"), Some(value), headers, MAX, &schemas);
    let by_id = NotDecoded::NeedSchema(SchemaRef::Id(SchemaId(7)));
    let guid_header = header([&[1], guid.as_bytes().as_slice()].concat());
    assert_eq!(need(b"\0\0\0\0\x07", &[]), Err(by_id.clone()));
    assert_eq!(need(b"x", &header(vec![0, 0, 0, 0, 7])), Err(by_id));
    assert_eq!(need(b"x", &guid_header), Err(NotDecoded::NeedSchema(SchemaRef::Guid(guid))));
    assert_eq!(code(need(b"x", &header(vec![1, 2]))).0, "undecodable");
    assert!(schemas.insert(SchemaRef::Guid(guid), "{}").is_err());
    let (refused, why) = code(need(b"x", &guid_header));
    let says = "this build cannot read the schema with guid 00000000-0000-0000-0000-000000000007: a type in it has no \"type\"";
    assert_eq!((refused, why.as_str()), ("unknown_schema", says));
    schemas.insert(SchemaRef::Guid(guid), texts::STEP_EVENT).unwrap();
    assert_eq!(code(need(b"x", &guid_header)).0, "undecodable");
}

#[test]
fn a_writer_with_another_schema_is_held_to_the_same_rules() {
    let schemas = Schemas::new(true);
    let of = SchemaId(1);
    let schema = r#"{"type":"record","name":"Mine","fields":[{"name":"saga_id","type":"string"},{"name":"extra","type":"int"},
        {"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
    schemas.insert(SchemaRef::Id(of), schema).unwrap();
    let value = [b"\0\0\0\0\x01".as_slice(), b"\x02s", b"\x02", b"\x02"].concat();
    let (code, message) = code(decode_event(Some(b"s"), Some(&value), &[], MAX, &schemas));
    assert_eq!((code, message.as_str()), ("invalid_event", "field \"event_id\" is missing"));
}

#[test]
fn an_object_is_json_whatever_the_header_says_and_avro_is_not_taken_for_it() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(7)), texts::STEP_EVENT).unwrap();
    let header = |bytes: &[u8]| vec![("__value_schema_id".to_owned(), Some(Bytes::copy_from_slice(bytes)))];
    for id in [&[0, 0, 0, 0, 7][..], &[0, 0, 0, 0, 8], b"junk"] {
        for before in ["", " ", "\r\n\t "] {
            let value = format!("{before}{}", event(""));
            assert!(decode_event(Some(b"s"), Some(value.as_bytes()), &header(id), MAX, &schemas).is_ok(), "{before:?}");
        }
    }
    // Their lengths look like white space before an object.
    for id in ["{abc}", "{0123456789abcd}"] {
        let mut event = decode("s", &event("")).unwrap();
        event.event_id = id.into();
        let value = encode_event(&event, Some(SchemaId(7))).unwrap().split_off(5);
        assert!(value[0].is_ascii_whitespace() && value[1] == b'{');
        assert_eq!(decode_event(Some(b"s"), Some(&value), &header(&[0, 0, 0, 0, 7]), MAX, &schemas), Ok(event));
    }
}

#[test]
fn a_record_that_is_too_large_is_so_before_its_schema_is_unknown() {
    let schemas = Schemas::new(true);
    let value = [&b"\0\0\0\0\x07"[..], &[b'x'; 200]].concat();
    let decode = |max| decode_event(Some(b"s"), Some(&value), &[], max, &schemas);
    let need = NotDecoded::NeedSchema(SchemaRef::Id(SchemaId(7)));
    // It may be a SAGA_RESTORED, so the schema is asked for first.
    assert_eq!([decode(206), decode(205)], [Err(need.clone()), Err(need)]);
    let missing = |max| schema_missing(SchemaRef::Id(SchemaId(7)), 206, max).0;
    assert_eq!([missing(206), missing(205)], ["unknown_schema", "too_large"]);
    assert_eq!(code(decode(51)).0, "too_large", "nor is a SAGA_RESTORED so large");
}

#[test]
fn a_saga_restored_of_four_times_the_limit_is_read() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::STEP_EVENT).unwrap();
    let mut restored = testing::one_restored();
    restored.context = None;
    let mut event = decode("new", &event(r#","context":{"a":1}"#).replace("\"s\"", "\"new\"")).unwrap();
    (event.kind, event.restored) = (Kind::SagaRestored, Some(Box::new(restored)));
    for schema in [None, Some(SchemaId(1))] {
        let value = encode_event(&event, schema).unwrap();
        let size = value.len() as u64 + 3;
        let read = |max| decode_event(Some(b"new"), Some(&value), &[], max, &schemas);
        assert_eq!(read(size.div_ceil(4)).as_ref(), Ok(&event));
        assert_eq!(code(read(size / 4 - 1)).0, "too_large");
    }
}

#[test]
fn a_magic_byte_too_short_for_an_id_is_unknown_without_a_registry() {
    let of = |registry| code(decode_event(Some(b"s"), Some(b"\0\0"), &[], MAX, &Schemas::new(registry))).0;
    assert_eq!((of(false), of(true)), ("unknown_schema", "undecodable"));
}

#[test]
fn avro_fields_of_the_wrong_type_are_invalid_as_json_ones_are() {
    let of = SchemaId(1);
    let decode = |fields: &str, datum: &[u8]| {
        let schemas = Schemas::new(true);
        let needed = ["event_id", "saga_id", "saga_name", "kind"].map(|name| format!(r#"{{"name":"{name}","type":"string"}},"#));
        let schema = format!(r#"{{"type":"record","name":"Mine","fields":[{}{fields}]}}"#, needed.concat());
        schemas.insert(SchemaRef::Id(of), &schema).unwrap();
        let value = [b"\0\0\0\0\x01\x02e\x02s\x02n\x18SAGA_STARTED", datum].concat();
        decode_event(Some(b"s"), Some(&value), &[], MAX, &schemas)
    };
    for (field, datum, says) in [
        (r#"{"name":"occurred_at","type":{"type":"long","logicalType":"local-timestamp-micros"}}"#, &[0][..], "with a zone"),
        (r#"{"name":"occurred_at","type":{"type":"int","logicalType":"date"}}"#, &[0], "field \"occurred_at\""),
        (r#"{"name":"context","type":{"type":"array","items":"int"}}"#, &[0], "\"context\" is not an object"),
        (
            r#"{"name":"context","type":{"type":"fixed","name":"F","size":1}}"#,
            &[0],
            "field \"context\" has a type that JSON lacks",
        ),
        (r#"{"name":"result","type":"double"}"#, &f64::NAN.to_le_bytes(), "field \"result\""),
        (r#"{"name":"step_index","type":"double"}"#, &1_f64.to_le_bytes(), "field \"step_index\""),
        (r#"{"name":"labels","type":{"type":"map","values":"int"}}"#, &[2, 2, b'a', 0, 0], "field \"labels\""),
    ] {
        let (code, message) = code(decode(field, datum));
        assert!(code == "invalid_event" && message.contains(says), "{field}: {code} {message}");
    }
    let record = r#"{"name":"context","type":{"type":"record","name":"C","fields":[{"name":"amount","type":"long"}]}}"#;
    assert_eq!(decode(record, &[2]).unwrap().context, ContextChange::Full(Json::from_valid(r#"{"amount":1}"#)));
}

#[test]
fn depth_is_counted_alike_in_json_and_avro() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::STEP_EVENT).unwrap();
    let nested = |n: usize| event(&format!(r#","result":{}{}"#, "[".repeat(n), "]".repeat(n)));
    for (depth, is_event) in [(127, true), (128, false)] {
        let json = nested(depth);
        let avro = avro::from_json(Shape::step_event(), SchemaId(1), &json).unwrap();
        for value in [json.as_bytes(), &avro] {
            assert_eq!(decode_event(Some(b"s"), Some(value), &[], MAX, &schemas).is_ok(), is_event);
        }
    }
}

#[test]
fn what_resaga_restores_reads_back_however_deep_its_results_nest() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::STEP_EVENT).unwrap();
    let mut restored = testing::one_restored();
    restored.context = None;
    restored.results = vec![("a".into(), Json::from_valid(format!("{}{}", "[".repeat(127), "]".repeat(127))))];
    let mut event = decode("new", &event("").replace("\"s\"", "\"new\"")).unwrap();
    (event.kind, event.restored) = (Kind::SagaRestored, Some(Box::new(restored)));
    for schema in [None, Some(SchemaId(1))] {
        let value = encode_event(&event, schema).unwrap();
        assert_eq!(decode_event(Some(b"new"), Some(&value), &[], MAX, &schemas).as_ref(), Ok(&event));
    }
}

proptest! {
    #[test]
    fn an_avro_event_that_breaks_off_or_goes_on_is_undecodable(event in testing::event()) {
        let schemas = Schemas::new(true);
        schemas.insert(SchemaRef::Id(SchemaId(1)), texts::STEP_EVENT).unwrap();
        let value = encode_event(&event, Some(SchemaId(1))).unwrap();
        let key = event.saga_id.as_str().as_bytes();
        let decode = |value: &[u8]| code(decode_event(Some(key), Some(value), &[], MAX, &schemas)).0;
        for end in 0..value.len() {
            prop_assert_eq!(decode(&value[..end]), "undecodable", "{} of {} bytes", end, value.len());
        }
        prop_assert_eq!(decode(&[&value[..], &[0]].concat()), "undecodable");
    }

    #[test]
    fn an_event_is_read_as_it_was_written(event in testing::event()) {
        let value = encode_event(&event, None).unwrap();
        prop_assert_eq!(&value, &encode_event(&event, None).unwrap());
        let key = event.saga_id.as_str().as_bytes();
        prop_assert_eq!(decode_event(Some(key), Some(&value), &[], MAX, &Schemas::new(false)), Ok(event));
    }

    #[test]
    fn avro_and_json_give_the_same_event(event in testing::event()) {
        let schemas = Schemas::new(true);
        schemas.insert(SchemaRef::Id(SchemaId(70_000)), texts::STEP_EVENT).unwrap();
        let value = encode_event(&event, Some(SchemaId(70_000))).unwrap();
        prop_assert_eq!(&value, &encode_event(&event, Some(SchemaId(70_000))).unwrap());
        let key = event.saga_id.as_str().as_bytes();
        prop_assert_eq!(decode_event(Some(key), Some(&value), &[], MAX, &schemas), Ok(event));
    }

    #[test]
    fn damage_never_panics(event in testing::event(), avro: bool, at: prop::sample::Index, byte: u8) {
        let schemas = Schemas::new(true);
        schemas.insert(SchemaRef::Id(SchemaId(1)), texts::STEP_EVENT).unwrap();
        let mut value = encode_event(&event, avro.then_some(SchemaId(1))).unwrap();
        let at = at.index(value.len());
        value[at] = byte;
        let key = event.saga_id.as_str().as_bytes();
        let _either = decode_event(Some(key), Some(&value), &[], MAX, &schemas);
        let _short = decode_event(Some(key), Some(&value[..at]), &[], MAX, &schemas);
    }
}
