//! RFC 6902 patches, applied so that members keep their order, number text survives, and `test` compares numbers by
//! value. Knows JSON alone.

use serde_json::{Map, Value};

use super::json::Json;
use super::request::Refusal;

/// Deepest nesting of a context: events hold it one level down, and are read to 128 levels.
const MAX_DEPTH: usize = 127;
/// Array elements, members and nodes that a patch may move or walk through altogether: some 0.2 s. An insert at the
/// front of an array moves all that is behind it, so a short patch on a long array could take minutes.
const MAX_WORK: usize = 10_000_000;
/// Bytes of text that `copy` may add altogether, so that a short patch cannot double a document without end
/// (a tree takes some thirty times its text).
const MAX_COPIED_BYTES: usize = 4 << 20;

/// The object `operations` make of `context`. A failed `test` is `override_conflict`, all else `override_invalid`.
pub fn apply(context: &Json, operations: &Json) -> Result<Json, Refusal> {
    let after = apply_to_value(context.to_value(), &operations.to_value())?;
    if !after.is_object() {
        return Err(invalid("override.patch leaves a context that is not an object"));
    }
    Ok(Json::from_value(&after))
}

/// As [`apply`], on a tree of any kind.
pub fn apply_to_value(mut document: Value, operations: &Value) -> Result<Value, Refusal> {
    let Value::Array(operations) = operations else { return Err(invalid("override.patch is not an array")) };
    let mut budget = Budget { work: MAX_WORK, copied: MAX_COPIED_BYTES };
    for (index, operation) in operations.iter().enumerate() {
        step(&mut document, operation, &mut budget).map_err(|failure| match failure {
            PatchFailure::Test => Refusal::new("override_conflict", format!("test of override.patch[{index}] failed")),
            PatchFailure::Invalid(why) => invalid(format!("override.patch[{index}]: {why}")),
            PatchFailure::TooMuchWork => invalid(format!(
                "override.patch[{index}]: the patch takes too much work: up to here its operations move or compare more than \
                 {MAX_WORK} elements and members; insert at the end of long arrays, or replace the whole array"
            )),
        })?;
    }
    Ok(document)
}

enum PatchFailure {
    Test,
    Invalid(&'static str),
    TooMuchWork,
}

/// What a patch may still cost.
struct Budget {
    /// Of [`MAX_WORK`].
    work: usize,
    /// Of [`MAX_COPIED_BYTES`].
    copied: usize,
}

impl Budget {
    fn work(&mut self, elements: usize) -> Result<(), PatchFailure> {
        self.work = self.work.checked_sub(elements).ok_or(PatchFailure::TooMuchWork)?;
        Ok(())
    }

    fn copy(&mut self, bytes: usize) -> Result<(), PatchFailure> {
        self.copied = self.copied.checked_sub(bytes).ok_or(PatchFailure::Invalid("the patch copies too much"))?;
        Ok(())
    }
}

fn step(document: &mut Value, operation: &Value, budget: &mut Budget) -> Result<(), PatchFailure> {
    let member = |name| operation.get(name).ok_or(PatchFailure::Invalid("a member is missing"));
    let pointer = |name| {
        let text = member(name)?.as_str().ok_or(PatchFailure::Invalid("path and from are strings"))?;
        tokens(text).ok_or(PatchFailure::Invalid("path and from are JSON pointers"))
    };
    let path = pointer("path")?;
    match operation.get("op").and_then(Value::as_str) {
        Some("add") => add(document, &path, member("value")?.clone(), budget),
        Some("remove") => remove(document, &path, budget).map(drop),
        Some("replace") => {
            let value = member("value")?;
            check_depth(&path, value, budget)?;
            value.clone_into(find_mut(document, &path)?);
            Ok(())
        }
        Some("move") => {
            let from = pointer("from")?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err(PatchFailure::Invalid("a value cannot be moved into itself"));
            }
            let value = remove(document, &from, budget)?;
            add(document, &path, value, budget)
        }
        Some("copy") => {
            let value = find_mut(document, &pointer("from")?)?;
            budget.copy(value.to_string().len())?;
            let value = value.clone();
            add(document, &path, value, budget)
        }
        Some("test") => {
            let expected = member("value")?;
            budget.work(nodes(expected))?;
            // A value that is not there differs from any: a conflict, not a mistake in the patch.
            match find_mut(document, &path) {
                Ok(found) if equal(found, expected) => Ok(()),
                _ => Err(PatchFailure::Test),
            }
        }
        _ => Err(PatchFailure::Invalid("op is not one of add, remove, replace, move, copy, test")),
    }
}

/// The reference tokens of a JSON pointer (RFC 6901).
fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    pointer.strip_prefix('/')?.split('/').map(unescape).collect()
}

fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

/// An array index: digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit());
    if plain { token.parse().ok() } else { None }
}

const NOT_THERE: PatchFailure = PatchFailure::Invalid("the path leads nowhere");

fn find_mut<'v>(document: &'v mut Value, path: &[String]) -> Result<&'v mut Value, PatchFailure> {
    path.iter().try_fold(document, |at, token| {
        match at {
            Value::Object(map) => map.get_mut(token),
            Value::Array(list) => list.get_mut(index(token).ok_or(NOT_THERE)?),
            _ => None,
        }
        .ok_or(NOT_THERE)
    })
}

fn add(document: &mut Value, path: &[String], value: Value, budget: &mut Budget) -> Result<(), PatchFailure> {
    check_depth(path, &value, budget)?;
    let Some((last, parents)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    match find_mut(document, parents)? {
        Value::Object(map) => drop(map.insert(last.clone(), value)),
        Value::Array(list) => {
            let at = if last == "-" { list.len() } else { index(last).ok_or(NOT_THERE)? };
            if at > list.len() {
                return Err(NOT_THERE);
            }
            budget.work(list.len() - at)?;
            list.insert(at, value);
        }
        _ => return Err(NOT_THERE),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &[String], budget: &mut Budget) -> Result<Value, PatchFailure> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(std::mem::take(document));
    };
    match find_mut(document, parents)? {
        Value::Object(map) => {
            // Those behind it move up.
            budget.work(map.len())?;
            map.shift_remove(last).ok_or(NOT_THERE)
        }
        Value::Array(list) => {
            let at = index(last).filter(|at| *at < list.len()).ok_or(NOT_THERE)?;
            budget.work(list.len() - at)?;
            Ok(list.remove(at))
        }
        _ => Err(NOT_THERE),
    }
}

/// RFC 6902, 4.6: numbers by value, members in any order.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a.as_str(), b.as_str()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(key, a)| has_equal(b, key, a)),
        (a, b) => a == b,
    }
}

fn has_equal(map: &Map<String, Value>, key: &str, value: &Value) -> bool {
    map.get(key).is_some_and(|other| equal(value, other))
}

/// Compares decimal texts exactly: `1.10` is `11e-1`, and no digit is lost to a float.
fn same_number(a: &str, b: &str) -> bool {
    a == b || matches!((Decimal::read(a), Decimal::read(b)), (Some(a), Some(b)) if a == b)
}

#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty is zero.
    digits: String,
    /// Of the last digit.
    exponent: i64,
}

impl Decimal {
    /// `None`: an exponent that no sane number has.
    fn read(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().ok()?;
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let dropped = (all.len() - digits.len()) as i64;
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let exponent = i64::from(exponent) - fraction.len() as i64 + dropped;
        Some(Self { negative, digits: digits.to_owned(), exponent })
    }
}

/// Checked at each step, so that no patch can build a tree too deep to walk.
fn check_depth(path: &[String], value: &Value, budget: &mut Budget) -> Result<(), PatchFailure> {
    let too_deep = PatchFailure::Invalid("the context would nest deeper than 127 levels");
    let Some(levels) = MAX_DEPTH.checked_sub(path.len()) else { return Err(too_deep) };
    // Walks through all of it.
    budget.work(nodes(value))?;
    if deeper_than(value, levels) { Err(too_deep) } else { Ok(()) }
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(list) => levels == 0 || list.iter().any(|value| deeper_than(value, levels - 1)),
        Value::Object(map) => levels == 0 || map.values().any(|value| deeper_than(value, levels - 1)),
        _ => false,
    }
}

/// How many values a tree holds.
fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("override_invalid", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(context: &str, operations: &str) -> Result<String, &'static str> {
        apply(&Json::from_valid(context), &Json::from_valid(operations))
            .map(|after| after.as_str().to_owned())
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn every_operation_keeps_order_and_number_text() {
        let context = r#"{"a":1.10,"b":[1,2,3],"c":{"d":12345678901234567890}}"#;
        let cases = [
            (r#"[{"op":"add","path":"/b/1","value":9}]"#, r#"{"a":1.10,"b":[1,9,2,3],"c":{"d":12345678901234567890}}"#),
            (r#"[{"op":"add","path":"/b/-","value":9}]"#, r#"{"a":1.10,"b":[1,2,3,9],"c":{"d":12345678901234567890}}"#),
            (r#"[{"op":"remove","path":"/a"}]"#, r#"{"b":[1,2,3],"c":{"d":12345678901234567890}}"#),
            (r#"[{"op":"replace","path":"/a","value":2.50}]"#, r#"{"a":2.50,"b":[1,2,3],"c":{"d":12345678901234567890}}"#),
            (r#"[{"op":"move","from":"/c/d","path":"/d"}]"#, r#"{"a":1.10,"b":[1,2,3],"c":{},"d":12345678901234567890}"#),
            (r#"[{"op":"copy","from":"/b/0","path":"/b/0"}]"#, r#"{"a":1.10,"b":[1,1,2,3],"c":{"d":12345678901234567890}}"#),
            (r#"[{"op":"test","path":"/a","value":1.1},{"op":"remove","path":"/c"}]"#, r#"{"a":1.10,"b":[1,2,3]}"#),
        ];
        for (operations, expected) in cases {
            assert_eq!(patched(context, operations).as_deref(), Ok(expected), "{operations}");
        }
    }

    #[test]
    fn a_failed_test_is_a_conflict_and_all_else_is_invalid() {
        assert_eq!(patched(r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#), Err("override_conflict"));
        assert_eq!(patched(r#"{"a":1}"#, r#"[{"op":"test","path":"/b","value":2}]"#), Err("override_conflict"));
        for operations in [
            r#"{"op":"add"}"#,
            r#"[1]"#,
            r#"[{"op":"test","path":"/a"}]"#,
            r#"[{"op":"add","path":"a","value":1}]"#,
            r#"[{"op":"add","path":"/a~2","value":1}]"#,
            r#"[{"op":"add","path":"/x/y","value":1}]"#,
            r#"[{"op":"remove","path":"/b"}]"#,
            r#"[{"op":"replace","path":"/b","value":1}]"#,
            r#"[{"op":"swap","path":"/a"}]"#,
            r#"[{"op":"replace","path":"","value":[]}]"#,
            r#"[{"op":"remove","path":"/l/01"}]"#,
            r#"[{"op":"move","from":"/l","path":"/l/0"}]"#,
        ] {
            assert_eq!(patched(r#"{"a":1,"l":[0,1]}"#, operations), Err("override_invalid"), "{operations}");
        }
    }

    #[test]
    fn test_compares_numbers_by_value() {
        for (a, b) in [("1", "1.0"), ("1.10", "11e-1"), ("-0", "0"), ("100", "1E+2"), ("0.5e1", "5"), ("0e9", "0.00")] {
            assert!(same_number(a, b), "{a} {b}");
        }
        for (a, b) in [("1", "2"), ("12345678901234567890", "12345678901234567891"), ("-1", "1"), ("1e400", "1e401")] {
            assert!(!same_number(a, b), "{a} {b}");
        }
        let deep = r#"{"a":{"x":[1.0,{"k":2}],"y":null}}"#;
        let test = r#"[{"op":"test","path":"/a","value":{"y":null,"x":[1,{"k":2.00}]}}]"#;
        assert_eq!(patched(deep, test).as_deref(), Ok(deep));
    }

    #[test]
    fn a_patch_is_bounded_in_work() {
        let long = format!(
            r#"{{"a":[{}1],"o":{{{}"z":1}}}}"#,
            "1,".repeat(480_000),
            (0..20_000).map(|n| format!(r#""k{n}":1,"#)).collect::<String>()
        );
        let many = |times: usize, operation: &str| format!("[{}]", vec![operation; times].join(","));
        let cases = [
            many(4_000, r#"{"op":"add","path":"/a/0","value":1}"#),
            many(4_000, r#"{"op":"remove","path":"/a/0"}"#),
            many(4_000, r#"{"op":"move","from":"/a","path":"/b"},{"op":"move","from":"/b","path":"/a"}"#),
            many(4_000, r#"{"op":"add","path":"/o/z","value":1},{"op":"remove","path":"/o/z"}"#),
        ];
        for operations in cases {
            let refusal = apply(&Json::from_valid(long.as_str()), &Json::from_valid(operations)).expect_err("too much");
            assert_eq!(refusal.code, "override_invalid");
            assert!(refusal.message.contains("takes too much work"), "{}", refusal.message);
        }
        let fine = [
            many(4_000, r#"{"op":"add","path":"/a/-","value":1}"#),
            many(10, r#"{"op":"add","path":"/a/0","value":1}"#),
            many(100, r#"{"op":"add","path":"/o/z","value":1},{"op":"remove","path":"/o/z"}"#),
        ];
        for operations in fine {
            assert!(patched(&long, &operations).is_ok());
        }
    }

    #[test]
    fn a_patch_cannot_grow_or_nest_a_context_without_end() {
        let nest = |times| format!("[{}]", vec![r#"{"op":"copy","from":"","path":"/a"}"#; times].join(","));
        assert!(patched(r#"{"a":1}"#, &nest(126)).is_ok());
        assert_eq!(patched(r#"{"a":1}"#, &nest(127)), Err("override_invalid"));
        let double = vec![r#"{"op":"copy","from":"","path":"/a"},{"op":"copy","from":"/a","path":"/b"}"#; 60].join(",");
        assert_eq!(patched(r#"{"a":1}"#, &format!("[{double}]")), Err("override_invalid"));
    }
}
