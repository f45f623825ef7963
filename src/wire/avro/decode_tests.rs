use super::super::Shape;
use super::super::datum::ENDS;
use super::super::writer::WriterSchema;
use super::*;

fn read(writer: &str, shape: &Shape, datum: &[u8]) -> Result<(String, Option<FieldError>), String> {
    to_json(&ReadPlan::new(&WriterSchema::parse(writer, &[]).unwrap(), shape), datum)
}
/// Fields of a record as the members of a step event.
fn event(fields: &str, datum: &[u8]) -> Result<(String, Option<FieldError>), String> {
    read(&record(fields), Shape::step_event(), datum)
}
fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","namespace":"n","fields":[{fields}]}}"#)
}
fn good(fields: &str, datum: &[u8]) -> String {
    match event(fields, datum) {
        Ok((text, None)) => text,
        other => panic!("{other:?}"),
    }
}
fn wrong(fields: &str, datum: &[u8]) -> String {
    match event(fields, datum) {
        Ok((_, Some(wrong))) => wrong.0,
        other => panic!("{other:?}"),
    }
}
fn long(n: i64) -> Vec<u8> {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}
fn text(text: &str) -> Vec<u8> {
    [&long(text.len() as i64)[..], text.as_bytes()].concat()
}

#[test]
fn a_datum_that_breaks_off_is_refused_whatever_its_type() {
    let types = [
        "\"boolean\"",
        "\"int\"",
        "\"long\"",
        "\"float\"",
        "\"double\"",
        "\"string\"",
        "\"bytes\"",
        r#"["null","string"]"#,
        r#"{"type":"enum","name":"E","symbols":["A"]}"#,
        r#"{"type":"fixed","name":"F","size":1}"#,
        r#"{"type":"array","items":"string"}"#,
        r#"{"type":"map","values":"string"}"#,
        r#"{"type":"long","logicalType":"timestamp-millis"}"#,
        r#"{"type":"string","logicalType":"uuid"}"#,
    ];
    for of in types {
        for name in ["step", "unknown"] {
            let field = format!(r#"{{"name":"{name}","type":{of}}}"#);
            assert_eq!(event(&field, &[]), Err(ENDS.to_owned()), "{field}");
        }
    }
    for (of, datum) in [("\"string\"", &[4, b'a'][..]), (r#"{"type":"array","items":"int"}"#, &[2]), ("\"long\"", &[0x80])] {
        assert_eq!(event(&format!(r#"{{"name":"step","type":{of}}}"#), datum), Err(ENDS.to_owned()), "{of}");
    }
}

#[test]
fn what_no_writer_writes_is_refused() {
    for (of, datum) in [
        ("\"boolean\"", &[2][..]),
        ("\"string\"", &[1]),
        ("\"string\"", &[2, 0xFF]),
        ("\"int\"", &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
        (r#"["null","int"]"#, &[4]),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, &[2]),
        ("\"int\"", &[2, 2]),
    ] {
        let refused = event(&format!(r#"{{"name":"step","type":{of}}}"#), datum);
        assert!(refused.is_err(), "{of}: {refused:?}");
    }
    assert_eq!(read(r#"{"type":"map","values":"int"}"#, Shape::step_event(), &[0]), Err("not an Avro record".into()));
}

#[test]
fn a_writer_schema_that_contains_itself_is_read_to_the_limit_of_depth() {
    for name in ["step", "unknown"] {
        let list = format!(r#"{{"name":"{name}","type":["null","R"]}}"#);
        let nested = |times: usize| [&[2].repeat(times)[..], &[0]].concat();
        assert!(event(&list, &nested(OWN_MAX_DEPTH - 1)).is_ok());
        assert_eq!(event(&list, &nested(OWN_MAX_DEPTH)), Err("nested too deep".into()));
        assert_eq!(event(&list, &nested(1 << 20)), Err("nested too deep".into()));
    }
    let tree =
        r#"{"name":"context","type":{"type":"record","name":"T","fields":[{"name":"c","type":{"type":"array","items":"n.T"}}]}}"#;
    assert_eq!(good(tree, &[4, 0, 2, 0, 0, 0]), r#"{"context":{"c":[{"c":[]},{"c":[{"c":[]}]}]}}"#);
}

#[test]
fn values_that_take_no_bytes_are_counted() {
    let huge = [&long(i64::MAX)[..], &[0]].concat();
    let smallest = [&long(i64::MIN)[..], &[0, 0]].concat();
    for datum in [huge, smallest, [&long(100_000)[..], &[0]].concat()] {
        for name in ["result", "unknown"] {
            for items in ["\"null\"", r#"{"type":"record","name":"E","fields":[]}"#, r#"{"type":"fixed","name":"F","size":0}"#] {
                let of = format!(r#"{{"name":"{name}","type":{{"type":"array","items":{items}}}}}"#);
                assert_eq!(event(&of, &datum), Err(TOO_MUCH.into()), "{of}");
            }
        }
    }
    let symbol = "S".repeat(100_000);
    let of =
        format!(r#"{{"name":"result","type":{{"type":"array","items":{{"type":"enum","name":"E","symbols":["{symbol}"]}}}}}}"#);
    let datum = [&long(1_000)[..], &[0; 1_001]].concat();
    assert_eq!(event(&of, &datum), Err(TOO_MUCH.into()), "a byte that stands for many");
}

#[test]
fn blocks_with_and_without_sizes_are_read() {
    let array = r#"{"name":"result","type":{"type":"array","items":"int"}}"#;
    let datum = [&long(2)[..], &[2, 4], &long(-1), &long(1), &[6], &long(1), &[8], &[0]].concat();
    assert_eq!(good(array, &datum), r#"{"result":[1,2,3,4]}"#);
    assert_eq!(good(&array.replace("result", "unknown"), &datum), "{}");
}

#[test]
fn maps_keep_their_order_and_of_one_name_the_last_counts() {
    let map = r#"{"name":"labels","type":{"type":"map","values":"string"}}"#;
    let pair = |name, value| [text(name), text(value)].concat();
    let datum = [long(3), pair("z", "1"), pair("a", "2"), pair("z", "3"), long(1), pair("b\"", "4"), long(0)].concat();
    assert_eq!(good(map, &datum), r#"{"labels":{"z":"1","a":"2","z":"3","b\"":"4"}}"#);
}

#[test]
fn times_are_written_with_a_zone_where_the_writer_has_one() {
    let at = |of: &str, n| format!(r#"{{"name":"occurred_at","type":{{"type":"long","logicalType":"{of}"}}}}|{n}"#);
    for (of, wanted) in [
        (at("timestamp-millis", 1), "1970-01-01T00:00:00.001000Z"),
        (at("timestamp-micros", -1), "1969-12-31T23:59:59.999999Z"),
        (at("timestamp-nanos", -1), "1969-12-31T23:59:59.999999Z"),
        (at("local-timestamp-millis", 1), "1970-01-01T00:00:00.001000"),
        (at("local-timestamp-micros", 1), "1970-01-01T00:00:00.000001"),
        (at("local-timestamp-nanos", 1_999), "1970-01-01T00:00:00.000001"),
        (r#"{"name":"occurred_at","type":"long"}|1"#.to_owned(), "1970-01-01T00:00:00.000001Z"),
    ] {
        let (field, n) = of.split_once('|').unwrap();
        assert_eq!(good(field, &long(n.parse().unwrap())), format!(r#"{{"occurred_at":"{wanted}"}}"#));
    }
    let millis = at("timestamp-millis", 0);
    let (field, _) = millis.split_once('|').unwrap();
    for n in [i64::MAX, i64::MIN, 253_402_300_800_000] {
        assert_eq!(wrong(field, &long(n)), "field \"occurred_at\" is a time out of range");
    }
    assert_eq!(good(&field.replace("occurred_at", "unknown"), &long(i64::MAX)), "{}");
}

#[test]
fn uuids_are_strings_in_every_layout() {
    let id = "00000000-0000-0000-0000-00000000000a";
    let bytes = [&[0; 15][..], &[10]].concat();
    let field = |of: &str| format!(r#"{{"name":"event_id","type":{of}}}"#);
    let wanted = format!(r#"{{"event_id":"{id}"}}"#);
    assert_eq!(good(&field(r#"{"type":"string","logicalType":"uuid"}"#), &text(id)), wanted);
    assert_eq!(good(&field(r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#), &bytes), wanted);
}

#[test]
fn what_json_lacks_is_of_the_wrong_type_and_the_rest_is_still_read() {
    let and = r#",{"name":"saga_id","type":"string"}"#;
    for (of, datum) in [
        (r#"{"type":"fixed","name":"F","size":2}"#, &[1, 2][..]),
        (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#, &[2, 7]),
        (r#"{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":4}"#, &[1, 2]),
        (r#"{"type":"int","logicalType":"date"}"#, &[2]),
        (r#"{"type":"int","logicalType":"time-millis"}"#, &[2]),
        (r#"{"type":"long","logicalType":"time-micros"}"#, &[2]),
        (r#"{"type":"fixed","name":"F","size":12,"logicalType":"duration"}"#, &[0; 12]),
    ] {
        for name in ["step", "context", "labels"] {
            let datum = [datum, &[2, b's']].concat();
            let field = format!(r#"{{"name":"{name}","type":["null",{of}]}}{and}"#);
            let (json, problem) = event(&field, &[&[2], &datum[..]].concat()).unwrap();
            assert_eq!(
                (json.as_str(), problem.unwrap().0),
                (r#"{"saga_id":"s"}"#, format!("field \"{name}\" has a type that JSON lacks"))
            );
            assert!(event(&field, &datum[..datum.len() - 1]).is_err(), "cut off comes first");
        }
        assert_eq!(good(&format!(r#"{{"name":"unknown","type":{of}}}"#), datum), "{}");
    }
    for n in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let problem = "field \"result\" is a number that JSON lacks";
        assert_eq!(wrong(r#"{"name":"result","type":"double"}"#, &n.to_le_bytes()), problem);
        assert_eq!(wrong(r#"{"name":"result","type":"float"}"#, &(n as f32).to_le_bytes()), problem);
    }
    let error = r#"{"name":"error","type":{"type":"record","name":"E","fields":[{"name":"code","type":{"type":"int","logicalType":"date"}}]}}"#;
    assert_eq!(wrong(error, &[0]), "field \"error.code\" has a type that JSON lacks");
    let context = r#"{"name":"context","type":{"type":"record","name":"C","fields":[{"name":"SECRET","type":"bytes"}]}}"#;
    assert_eq!(wrong(context, &[0]), "field \"context\" has a type that JSON lacks");
}

#[test]
fn where_we_have_json_a_record_is_written_whole() {
    let context = r#"{"name":"context","type":{"type":"record","name":"C","fields":[{"name":"amount","type":"double"},
        {"name":"step","type":["null","string"]},{"name":"tags","type":{"type":"map","values":"long"}},{"name":"small","type":"float"},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"n","type":{"type":"array","items":"boolean"}}]}}"#;
    let datum = [
        &1.5_f64.to_le_bytes()[..],
        &[0],
        &long(1),
        &text("a"),
        &long(-7),
        &[0],
        &0.1_f32.to_le_bytes(),
        &long(0),
        &[4, 1, 0, 0],
    ];
    let wanted = r#"{"context":{"amount":1.5,"step":null,"tags":{"a":-7},"small":0.1,"at":"1970-01-01T00:00:00.000000Z","n":[true,false]}}"#;
    assert_eq!(good(context, &datum.concat()), wanted);
}

#[test]
fn labels_may_be_a_record_of_strings() {
    let labels = r#"{"name":"labels","type":{"type":"record","name":"L","fields":[{"name":"team","type":"string"},
        {"name":"region","type":["null","string"]}]}}"#;
    assert_eq!(good(labels, &[&text("a")[..], &[0]].concat()), r#"{"labels":{"team":"a"}}"#);
    assert_eq!(good(labels, &[&text("a")[..], &[2], &text("b")].concat()), r#"{"labels":{"team":"a","region":"b"}}"#);
}

#[test]
fn json_text_keeps_its_bytes_and_cannot_break_out() {
    let context = r#"{"name":"context","type":"string"}"#;
    let kept = r#"{"z": 1.10,"a":12345678901234567890,"\u0061":1E+5}"#;
    assert_eq!(good(context, &text(kept)), format!(r#"{{"context":{kept}}}"#));
    for bad in [r#"{},"kind":"x""#, "", "{", "{} {}", "\u{feff}{}"] {
        let message = event(context, &text(bad)).unwrap_err();
        assert!(message.starts_with("field \"context\": "), "{message}");
    }
    let nested = |n: usize| text(&format!("{}{}", "[".repeat(n), "]".repeat(n)));
    assert!(event(context, &nested(OWN_MAX_DEPTH - 1)).is_ok());
    assert_eq!(
        event(context, &nested(OWN_MAX_DEPTH)).unwrap_err(),
        format!("field \"context\": nested too deep at byte {}", OWN_MAX_DEPTH - 1)
    );
}

#[test]
fn bytes_are_a_string_where_our_schema_has_one() {
    let of = |name: &str| format!(r#"{{"name":"{name}","type":["null","bytes"]}}"#);
    assert_eq!(good(&of("context"), &[&[2][..], &text(r#"{"a":1.10}"#)].concat()), r#"{"context":{"a":1.10}}"#);
    assert_eq!(good(&of("step"), &[&[2][..], &text("ä")].concat()), r#"{"step":"ä"}"#);
    assert_eq!(event(&of("step"), &[2, 2, 0xFF]), Err("a string in the Avro value is not UTF-8".into()));
    assert_eq!(wrong(&of("labels"), &[2, 2, 7]), "field \"labels\" has a type that JSON lacks");
}

#[test]
fn fields_that_java_reads_are_read_whatever_their_names_and_defaults() {
    let fields = r#"{"name":"order-id","type":"string","default":null},{"name":"size","type":{"type":"enum","name":"S",
        "symbols":["S","X-LARGE"],"default":"NONE"}},{"name":"cause","type":{"type":"error","name":"Cause","fields":[]}},
        {"name":"n","type":"int","default":"0"},{"name":"step","type":"string"}"#;
    let datum = [&text("order-1")[..], &[2], &long(7), &text("charge")].concat();
    assert_eq!(good(fields, &datum), r#"{"step":"charge"}"#);
    let whole =
        format!(r#"{{"name":"result","type":{{"type":"record","name":"Outer","namespace":"a.B$","fields":[{fields}]}}}}"#);
    assert_eq!(good(&whole, &datum), r#"{"result":{"order-id":"order-1","size":"X-LARGE","cause":{},"n":7,"step":"charge"}}"#);
}

#[test]
fn a_name_is_found_in_the_namespace_around_it() {
    let fields = r#"{"name":"error","type":{"type":"record","name":"E","namespace":"other","fields":[{"name":"code","type":
        {"type":"enum","name":"C","symbols":["X","Y"]}},{"name":"type","type":"C"}]}},{"name":"step","type":"other.C"}"#;
    assert_eq!(good(fields, &[0, 2, 2]), r#"{"error":{"code":"X","type":"Y"},"step":"Y"}"#);
    let root = r#"["null",{"type":"record","name":"R","fields":[{"name":"step","type":"string"}]}]"#;
    assert_eq!(read(root, Shape::step_event(), &[2, 2, b'a']).unwrap().0, r#"{"step":"a"}"#);
    assert_eq!(read(root, Shape::step_event(), &[0]), Err("not an Avro record".into()));
}
