use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::wire::json::MAX_DEPTH;

fn nested(depth: usize) -> String {
    format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[test]
fn depth_128_is_read_and_129_is_not() {
    assert!(read_object(nested(128).as_bytes(), MAX_DEPTH).is_ok());
    assert_eq!(read_object(nested(129).as_bytes(), MAX_DEPTH).map_err(|e| e.why), Err("nested too deep"));
    let objects = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
    assert!(read_object(objects(128).as_bytes(), MAX_DEPTH).is_ok());
    assert!(read_object(objects(129).as_bytes(), MAX_DEPTH).is_err());
    assert!(read_object("[".repeat(1 << 20).as_bytes(), MAX_DEPTH).is_err());
}

#[test]
fn of_duplicate_names_the_last_wins_at_every_level() {
    let text = br#"{"a":1,"c":{"x":1.10,"y":{"k":1,"\u006b":2},"x":3},"a":2}"#;
    let object = read_object(text, MAX_DEPTH).unwrap();
    assert_eq!(object.get("a").unwrap().i64(), Some(2));
    assert_eq!(object.get("c").unwrap().json().as_str(), r#"{"x":3,"y":{"k":2}}"#);
    assert_eq!(object.members().iter().map(|m| m.0).collect::<Vec<_>>(), ["a", "c"]);
    let many: String = (0..40).map(|n| format!("\"k{}\":{n},", n % 39)).collect();
    let raw = format!("{{{}}}", many.trim_end_matches(','));
    assert!(read_value(raw.as_bytes(), MAX_DEPTH).unwrap().json().as_str().starts_with("{\"k0\":39,\"k1\":1,"));
}

#[test]
fn text_is_kept_where_no_name_is_twice() {
    let text = r#"{"b": 1.10, "a":12345678901234567890e1 ,"c":{"z":[1 ,2]}}"#;
    assert_eq!(read_value(text.as_bytes(), MAX_DEPTH).unwrap().json().as_str(), text);
}

#[test]
fn lone_surrogates_and_bad_utf8_are_refused() {
    for text in [r#"{"a":"\ud800"}"#, r#"{"a":"\udc00"}"#, r#"{"a":"\ud800\u0041"}"#, r#"{"\ud83d":1}"#, r#"{"a":"\ud800x"}"#] {
        assert!(read_object(text.as_bytes(), MAX_DEPTH).is_err(), "{text}");
    }
    assert!(read_object(br#"{"a":"\ud83d\ude9a"}"#, MAX_DEPTH).is_ok());
    assert_eq!(read_object(b"{\"a\":\"\xff\"}", MAX_DEPTH).map_err(|e| e.at), Err(6));
}

#[test]
fn an_integer_with_a_point_is_not_an_integer() {
    let raw = |text: &'static str| read_value(text.as_bytes(), MAX_DEPTH).unwrap();
    assert_eq!(raw("2").i64(), Some(2));
    assert_eq!(raw("-0").u64(), Some(0));
    for text in ["2.0", "2e0", "\"2\"", "9223372036854775808", "true"] {
        assert_eq!(raw(text).i64(), None, "{text}");
    }
    assert_eq!(raw("-1").u64(), None);
}

#[test]
fn names_that_serde_json_uses_itself_are_names_like_others() {
    for name in ["$serde_json::private::Number", "$serde_json::private::RawValue", "\\u0024serde_json::private::Number"] {
        let twice = format!(r#"{{"c":{{"{name}":"x","{name}":{{"{name}":"1"}}}}}}"#);
        let kept = read_object(twice.as_bytes(), MAX_DEPTH).unwrap().get("c").unwrap().json();
        let plain = name.replace("\\u0024", "$");
        assert_eq!(kept.as_str(), format!(r#"{{"{plain}":{{"{plain}":"1"}}}}"#));
    }
}

fn json_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\":",
        "1",
        "-",
        "0",
        ".5",
        "e1",
        "E+",
        "true",
        "null",
        " ",
        "\\",
        "\\u0041",
        "\\ud83d\\ude9a",
        "\"k\":[",
        "\u{1}",
        "é",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..12).prop_map(|p| p.concat()),
        valid_json().prop_map(|v| v.to_string()),
        (valid_json(), any::<prop::sample::Index>()).prop_map(|(v, at)| {
            let mut text: Vec<char> = v.to_string().chars().collect();
            text.remove(at.index(text.len()));
            text.into_iter().collect()
        }),
    ]
}
fn valid_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

/// serde_json writes `1e3` as `1e+3` when it reads a tree; ours keeps the text, so ours is read once more to compare.
fn as_serde_json_reads(ours: &serde_json::Value) -> serde_json::Value {
    serde_json::from_str(&ours.to_string()).unwrap()
}

proptest! {
    #[test]
    fn accepts_exactly_what_serde_json_accepts(text in json_like()) {
        let ours = read_value(text.as_bytes(), MAX_DEPTH);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", text);
        if let (Ok(raw), Ok(tree)) = (ours, theirs) {
            prop_assert_eq!(as_serde_json_reads(&raw.json().to_value()), tree.clone());
            if let Some(object) = raw.object() {
                for (name, member) in object.members() {
                    prop_assert_eq!(Some(&as_serde_json_reads(&member.json().to_value())), tree.get(name));
                }
            }
            if let Some(elements) = raw.array() {
                let elements: Vec<_> = elements.iter().map(|e| as_serde_json_reads(&e.json().to_value())).collect();
                prop_assert_eq!(Some(&elements), tree.as_array());
            }
            if let Some(string) = raw.string() {
                prop_assert_eq!(String::deserialize(&tree).unwrap(), string);
            }
        }
    }
}
