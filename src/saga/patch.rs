//! What differs between two JSON texts: pointers, RFC 6902; and overrides.
//!
//! Works on the text and takes apart only the objects that differ. Knows RFC 6902 through [`super::json_patch`], RFC 7396
//! through [`super::context`]; must not know what a context means.

use ::json_patch::PatchOperation;
use serde_json::Value;

use super::context::{merge_patch, set_keys};
use super::json::Json;
use super::json_patch;
use super::members::Members;
use super::request::{Override, Refusal};

/// JSON pointers of the deepest members that differ, arrays as a whole; a member that one side lacks is named itself,
/// not its inside. In the order of `after`, then what it lacks.
pub fn changed_pointers(before: &Json, after: &Json) -> Vec<String> {
    let mut found = Vec::new();
    collect_changed(before.as_str(), after.as_str(), &mut String::new(), &mut found);
    found
}

fn collect_changed(before: &str, after: &str, path: &mut String, found: &mut Vec<String>) {
    if before == after {
        return;
    }
    let (Some(old), Some(new)) = (Members::<&str>::of(before), Members::<&str>::of(after)) else {
        // Texts may differ in white space, escapes or member order alone.
        if value_of(before) != value_of(after) {
            found.push(path.clone());
        }
        return;
    };
    let parent = path.len();
    for (key, value) in new.iter() {
        push_token(path, key);
        match old.get(key) {
            Some(was) => collect_changed(was, value, path, found),
            None => found.push(path.clone()),
        }
        path.truncate(parent);
    }
    for (key, _) in old.iter().filter(|(key, _)| new.get(key).is_none()) {
        push_token(path, key);
        found.push(path.clone());
        path.truncate(parent);
    }
}

fn push_token(path: &mut String, key: &str) {
    path.push('/');
    for c in key.chars() {
        match c {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            c => path.push(c),
        }
    }
}

fn value_of(text: &str) -> Value {
    Json::from_valid(text).to_value()
}

/// RFC 6902 operations that turn `before` into `after`.
pub fn diff(before: &Json, after: &Json) -> Value {
    let patch = ::json_patch::diff(&before.to_value(), &after.to_value());
    Value::Array(patch.0.into_iter().map(operation).collect())
}

/// By hand: serde_json would rewrite the number `1e3` as `1e+3`.
fn operation(operation: PatchOperation) -> Value {
    let (op, path, value) = match operation {
        PatchOperation::Add(add) => ("add", add.path, Some(add.value)),
        PatchOperation::Remove(remove) => ("remove", remove.path, None),
        PatchOperation::Replace(replace) => ("replace", replace.path, Some(replace.value)),
        // These a difference never has: it knows neither where a value came from nor what to test.
        PatchOperation::Move(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => return Value::Null,
    };
    let named = [("op", Some(op.into())), ("path", Some(path.to_string().into())), ("value", value)];
    Value::Object(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// The context with the override applied.
pub fn apply_override(context: &Json, change: &Override) -> Result<Json, Refusal> {
    match change {
        Override::Merge(patch) if patch.is_object() => Ok(merge_patch(context, patch)),
        Override::Shallow(keys) if keys.is_object() => Ok(set_keys(context, keys)),
        Override::Replace(whole) if whole.is_object() => Ok(whole.clone()),
        Override::Patch(operations) => json_patch::apply(context, operations),
        // Evaluated before a replay is planned: `PlanFacts::context`.
        Override::Jq(_) => Err(Refusal::new("override_invalid", "override.jq was not evaluated")),
        Override::Merge(_) | Override::Shallow(_) | Override::Replace(_) => {
            Err(Refusal::new("override_invalid", "override: merge, shallow and replace take an object"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Json {
        Json::from_valid(text)
    }

    #[test]
    fn a_merge_patch_keeps_places_bytes_and_number_text() {
        let before = json(r#"{"b": 1.10, "a":{"x" : 12345678901234567890,"y":[1, 2]},"é":1E+5}"#);
        let after = merge_patch(&before, &json(r#"{"n":{"z":null,"k":{}},"a":{"x":null,"w":2},"b":null,"é":2}"#));
        assert_eq!(after.as_str(), r#"{"a":{"y":[1, 2],"w":2},"é":2,"n":{"k":{}}}"#);
    }

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merge_patch(&json(target), &json(patch)).as_str(), expected, "{target} + {patch}");
        }
    }

    #[test]
    fn set_keys_replaces_whole_members_and_null_is_a_value() {
        let after = set_keys(&json(r#"{"a":{"x":1},"b":2}"#), &json(r#"{"b":null,"a":{"y":2},"c":{"z":null}}"#));
        assert_eq!(after.as_str(), r#"{"a":{"y":2},"b":null,"c":{"z":null}}"#);
    }

    #[test]
    fn of_duplicate_names_the_last_wins() {
        assert_eq!(set_keys(&json(r#"{"a":1,"b":2,"a":3}"#), &json("{}")).as_str(), r#"{"a":3,"b":2}"#);
        assert_eq!(merge_patch(&json(r#"{"a":1}"#), &json(r#"{"a":{"x":1},"a":2}"#)).as_str(), r#"{"a":2}"#);
    }

    #[test]
    fn changed_pointers_name_the_deepest_members_and_arrays_as_a_whole() {
        let before = json(r#"{"a":{"b":1,"c":[1,2]},"x/y":1,"gone":{"k":1},"same":{"p": [1]}}"#);
        let after = json(r#"{"a":{"b":2,"c":[1,3]},"x/y":2,"new~":{"k":1},"same":{"p":[1]}}"#);
        assert_eq!(changed_pointers(&before, &after), ["/a/b", "/a/c", "/x~1y", "/new~0", "/gone"]);
    }

    #[test]
    fn a_diff_names_operations_of_rfc_6902() {
        let patch = diff(&json(r#"{"amount":99.50,"token":"old"}"#), &json(r#"{"amount":99.50,"token":"new"}"#));
        assert_eq!(patch.to_string(), r#"[{"op":"replace","path":"/token","value":"new"}]"#);
        let patch = diff(&json(r#"{"a":1,"b":2}"#), &json(r#"{"b":1e3,"c~/":{"n":1E5}}"#));
        let wanted = r#"[{"op":"replace","path":"/b","value":1e3},{"op":"add","path":"/c~0~1","value":{"n":1E5}},{"op":"remove","path":"/a"}]"#;
        assert_eq!(patch.to_string(), wanted);
    }

    #[test]
    fn a_diff_keeps_the_text_of_numbers() {
        let patch = diff(&json(r#"{"a":1,"b":[1]}"#), &json(r#"{"a":1e3,"b":[1,{"c":1E-7}]}"#));
        let expected = r#"[{"op":"replace","path":"/a","value":1e3},{"op":"add","path":"/b/1","value":{"c":1E-7}}]"#;
        assert_eq!(patch.to_string(), expected);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-cé🚚\"/~]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-dé/]{1,2}", inner), 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// RFC 7396, section 2, word by word.
    fn merge_model(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = if let Value::Object(map) = target { map } else { serde_json::Map::new() };
        for (name, value) in patch {
            if value.is_null() {
                target.shift_remove(name);
            } else {
                let before = target.get(name).cloned().unwrap_or(Value::Null);
                target.insert(name.clone(), merge_model(before, value));
            }
        }
        Value::Object(target)
    }

    /// An object of these members, in this order, duplicates included.
    fn object(members: &[(u8, Option<i64>)]) -> Json {
        let member = |(key, value): &(u8, Option<i64>)| format!("\"k{key}\":{}", value.map_or("null".into(), |n| n.to_string()));
        json(&format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(",")))
    }

    proptest! {
        #[test]
        fn objects_small_and_large_are_merged_and_compared_alike(
            before in prop::collection::vec((0..60_u8, (0..9_i64).prop_map(Some)), 0..60),
            patch in prop::collection::vec((0..60_u8, prop::option::of(0..9_i64)), 0..60),
        ) {
            let mut naive: Vec<(u8, Option<i64>)> = Vec::new();
            let mut last: Vec<(u8, Option<i64>)> = Vec::new();
            for (key, value) in &patch {
                match last.iter_mut().find(|(known, _)| known == key) {
                    Some((_, known)) => *known = *value,
                    None => last.push((*key, *value)),
                }
            }
            for (key, value) in before.iter().chain(&last) {
                match (naive.iter().position(|(known, _)| known == key), value) {
                    (Some(at), None) => drop(naive.remove(at)),
                    (Some(at), Some(_)) => naive[at].1 = *value,
                    (None, None) => {}
                    (None, Some(_)) => naive.push((*key, *value)),
                }
            }
            let (target, after) = (object(&before), object(&naive));
            prop_assert_eq!(&merge_patch(&target, &object(&patch)), &after);
            let value = |json: &Json, key: u8| json.to_value().get(format!("k{key}")).cloned();
            let mut changed: Vec<u8> = (0..60).filter(|key| value(&target, *key) != value(&after, *key)).collect();
            let mut found: Vec<u8> =
                changed_pointers(&target, &after).iter().map(|pointer| pointer[2..].parse().expect("a number")).collect();
            changed.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, changed);
        }

        #[test]
        fn merging_texts_is_merging_trees(target in value(), patch in value()) {
            let merged = merge_patch(&Json::from_value(&target), &Json::from_value(&patch));
            prop_assert_eq!(merged.as_str(), merge_model(target, &patch).to_string());
        }

        #[test]
        fn nothing_is_changed_exactly_when_the_values_are_equal(before in value(), after in value()) {
            let changed = changed_pointers(&Json::from_value(&before), &Json::from_value(&after));
            prop_assert_eq!(changed.is_empty(), before == after);
        }

        #[test]
        fn a_diff_leads_from_one_to_the_other(before in value(), after in value()) {
            let patch = diff(&Json::from_value(&before), &Json::from_value(&after));
            let again = json_patch::apply_to_value(before, &patch).expect("applies");
            prop_assert_eq!(again, after);
        }
    }
}
