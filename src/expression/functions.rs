//! The functions that are not written in the language itself (`prelude.jq` has those): pure, and each within the budget.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jaq_core::native::{Filter, Fun, bome, run, v};
use jaq_core::{Bind, DataT, Exn, RunPtr, ValT, ValX, ValXs};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::budget;
use super::number::Number;
use super::operators::{Error, Outcome};
use super::text;
use super::value::Value;

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Those of the interpreter among them: an expression names only what [`super::allowed`] lists.
pub fn functions<D: for<'a> DataT<V<'a> = Value>>() -> impl Iterator<Item = Fun<D>> {
    jaq_core::funs().chain(own().into_iter().map(run))
}

fn own<D: for<'a> DataT<V<'a> = Value>>() -> Vec<Filter<RunPtr<D>>> {
    let f = || -> Box<[Bind]> { [Bind::Fun(())].into() };
    vec![
        ("floor", v(0), |cv| bome(rounded(cv.1, f64::floor))),
        ("ceil", v(0), |cv| bome(rounded(cv.1, f64::ceil))),
        ("round", v(0), |cv| bome(rounded(cv.1, f64::round))),
        ("trunc", v(0), |cv| bome(rounded(cv.1, f64::trunc))),
        ("sqrt", v(0), |cv| bome(number(cv.1).map(|n| Value::Number(Number::of_f64(n.to_f64().sqrt()))))),
        ("type", v(0), |cv| bome(Ok(Value::string(cv.1.kind())))),
        ("length", v(0), |cv| bome(length(cv.1))),
        ("utf8bytelength", v(0), |cv| bome(string(cv.1).map(|text| Value::whole(text.len() as u64)))),
        ("not", v(0), |cv| bome(Ok(Value::Bool(!cv.1.as_bool())))),
        ("tojson", v(0), |cv| bome(Ok(Value::string(text::write(&cv.1))))),
        ("fromjson", v(0), |cv| bome(parsed(cv.1, "JSON", |_| true))),
        ("tonumber", v(0), |cv| {
            bome(match cv.1 {
                number @ Value::Number(_) => Ok(number),
                other => parsed(other, "a number", |value| matches!(value, Value::Number(_))),
            })
        }),
        ("ascii_downcase", v(0), |cv| bome(on_string(cv.1, |text| text.to_ascii_lowercase()))),
        ("ascii_upcase", v(0), |cv| bome(on_string(cv.1, |text| text.to_ascii_uppercase()))),
        ("trim", v(0), |cv| bome(on_string(cv.1, |text| text.trim().into()))),
        ("ltrim", v(0), |cv| bome(on_string(cv.1, |text| text.trim_start().into()))),
        ("rtrim", v(0), |cv| bome(on_string(cv.1, |text| text.trim_end().into()))),
        ("explode", v(0), |cv| bome(string(cv.1).map(|text| Value::array(text.chars().map(|c| Value::whole(u32::from(c))))))),
        ("implode", v(0), |cv| bome(implode(cv.1))),
        ("encode_base64", v(0), |cv| bome(on_string(cv.1, |text| BASE64.encode(text)))),
        ("decode_base64", v(0), |cv| {
            bome(string(cv.1).and_then(|text| {
                let bytes = BASE64.decode(text.as_bytes()).map_err(|_| Error::str("cannot read as base64"))?;
                utf8(bytes)
            }))
        }),
        ("encode_uri", v(0), |cv| bome(on_string(cv.1, |text| utf8_percent_encode(text, RESERVED).to_string()))),
        ("decode_uri", v(0), |cv| bome(string(cv.1).and_then(|text| utf8(percent_decode_str(&text).collect())))),
        ("startswith", v(1), |cv| two_strings(cv, |text, with| Ok(Value::Bool(text.starts_with(with))))),
        ("endswith", v(1), |cv| two_strings(cv, |text, with| Ok(Value::Bool(text.ends_with(with))))),
        ("ltrimstr", v(1), |mut cv| bome(Ok(trimmed(cv.0.pop_var(), cv.1, |text, with| text.strip_prefix(with))))),
        ("rtrimstr", v(1), |mut cv| bome(Ok(trimmed(cv.0.pop_var(), cv.1, |text, with| text.strip_suffix(with))))),
        ("split", v(1), |cv| two_strings(cv, |text, by| Value::string(text) / Value::string(by))),
        ("has", v(1), |mut cv| bome(has(&cv.0.pop_var(), cv.1))),
        ("contains", v(1), |mut cv| bome(contains(&cv.1, &cv.0.pop_var()).map(Value::Bool))),
        ("indices", v(1), |mut cv| bome(indices(&cv.0.pop_var(), cv.1))),
        ("reverse", v(0), |cv| bome(on_items(cv.1, |items| items.reverse()))),
        ("sort", v(0), |cv| bome(on_items(cv.1, |items| items.sort()))),
        ("sort_by", f(), |cv| once(keyed(cv).map(|keyed| Value::array(keyed.into_iter().map(|(_, item)| item))))),
        ("group_by", f(), |cv| once(keyed(cv).map(grouped))),
        ("min_by", f(), |cv| once(keyed(cv).map(|keyed| keyed.into_iter().next().map_or(Value::Null, |(_, item)| item)))),
        ("max_by", f(), |cv| once(keyed(cv).map(|mut keyed| keyed.pop().map_or(Value::Null, |(_, item)| item)))),
    ]
}

fn once<'a>(value: ValX<'a, Value>) -> ValXs<'a, Value> {
    Box::new(std::iter::once(value))
}

fn number(value: Value) -> Result<Number, Error> {
    if let Value::Number(number) = value { Ok(number) } else { Err(Error::typ(value, "number")) }
}

fn rounded(value: Value, round: fn(f64) -> f64) -> Outcome {
    number(value).map(|number| Value::Number(number.rounded(round)))
}

#[expect(clippy::rc_buffer, reason = "a string of a value")]
fn string(value: Value) -> Result<Rc<String>, Error> {
    if let Value::String(text) = value {
        budget::read(text.len());
        Ok(text)
    } else {
        Err(Error::typ(value, "string"))
    }
}

fn on_string(value: Value, change: impl FnOnce(&str) -> String) -> Outcome {
    string(value).map(|text| Value::string(change(&text)))
}

fn two_strings<'a, D: DataT<V<'a> = Value>>(
    mut cv: jaq_core::Cv<'a, D>,
    f: impl FnOnce(&str, &str) -> Outcome,
) -> ValXs<'a, Value> {
    let other = cv.0.pop_var();
    bome(string(cv.1).and_then(|text| f(&text, &string(other)?)))
}

/// As it was where it is no string, or has no such end.
fn trimmed(with: Value, value: Value, strip: for<'t> fn(&'t str, &str) -> Option<&'t str>) -> Value {
    match (&value, &with) {
        (Value::String(text), Value::String(with)) => strip(text, with).map_or_else(|| value.clone(), Value::string),
        _ => value,
    }
}

fn utf8(bytes: Vec<u8>) -> Outcome {
    String::from_utf8(bytes).map(Value::string).map_err(|_| Error::str("cannot read as UTF-8"))
}

fn parsed(value: Value, what: &str, fits: fn(&Value) -> bool) -> Outcome {
    let text = string(value)?;
    text::read(text.trim()).filter(fits).ok_or_else(|| Error::str(format_args!("cannot read a string as {what}")))
}

fn length(value: Value) -> Outcome {
    Ok(match value {
        Value::Null => Value::whole(0),
        Value::Number(number) if number < Number::Whole(0) => Value::Number(number.negated()),
        Value::Number(number) => Value::Number(number),
        Value::String(text) => {
            budget::read(text.len());
            Value::whole(text.chars().count() as u64)
        }
        Value::Array(array) => Value::whole(array.items.len() as u64),
        Value::Object(object) => Value::whole(object.members.len() as u64),
        Value::Bool(_) => return Err(Error::typ(value, "something with a length")),
    })
}

fn implode(value: Value) -> Outcome {
    let Value::Array(array) = value else { return Err(Error::typ(value, "array")) };
    let character = |item: &Value| match item {
        Value::Number(number) => number.to_index().and_then(|code| char::from_u32(u32::try_from(code).ok()?)),
        _ => None,
    };
    let text: Option<String> = array.items.iter().map(character).collect();
    text.map(Value::string).ok_or_else(|| Error::str("cannot make characters of all elements"))
}

fn has(index: &Value, value: Value) -> Outcome {
    match (value, index) {
        (Value::Object(object), Value::String(name)) => Ok(Value::Bool(object.members.contains_key(name.as_str()))),
        (Value::Array(array), Value::Number(at)) => {
            let at = at.to_index().and_then(|at| usize::try_from(at).ok());
            Ok(Value::Bool(at.is_some_and(|at| at < array.items.len())))
        }
        (value, index) => Err(Error::index(value, index.clone())),
    }
}

/// Strings: a part of it. Arrays: each is contained in one. Objects: each member in that of its name. Others: equal.
fn contains(value: &Value, part: &Value) -> Result<bool, Error> {
    budget::step();
    match (value, part) {
        (Value::Object(all), Value::Object(some)) => {
            for (name, part) in &some.members {
                match all.members.get(name) {
                    Some(value) if contains(value, part)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Value::Array(all), Value::Array(some)) => {
            for part in &some.items {
                let mut found = false;
                for value in &all.items {
                    found = found || value.kind() == part.kind() && contains(value, part)?;
                }
                if !found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::String(text), Value::String(part)) => {
            budget::read(text.len());
            Ok(text.contains(part.as_str()))
        }
        (value, part) if value.kind() == part.kind() => Ok(value == part),
        (value, part) => Err(Error::index(value.clone(), part.clone())),
    }
}

/// Where it is: of a string in a string by characters, of elements or of a row of them in an array.
fn indices(part: &Value, value: Value) -> Outcome {
    match (value, part) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::String(text), Value::String(part)) if !part.is_empty() => {
            budget::read(text.len());
            // Overlapping ones count, too.
            let starts = text.char_indices().enumerate().filter(|(_, (at, _))| {
                budget::step();
                text[*at..].starts_with(part.as_str())
            });
            Ok(Value::array(starts.map(|(character, _)| Value::whole(character as u64))))
        }
        (Value::Array(array), Value::Array(row)) if !row.items.is_empty() => {
            let starts = array.items.windows(row.items.len()).enumerate().filter(|(_, window)| *window == row.items);
            Ok(Value::array(starts.map(|(at, _)| Value::whole(at as u64))))
        }
        (Value::String(_), Value::String(_)) | (Value::Array(_), Value::Array(_)) => Ok(Value::Null),
        (Value::Array(array), part) => {
            let found = array.items.iter().enumerate().filter(|(_, item)| *item == part);
            Ok(Value::array(found.map(|(at, _)| Value::whole(at as u64))))
        }
        (value, part) => Err(Error::index(value, part.clone())),
    }
}

fn on_items(value: Value, change: impl FnOnce(&mut Vec<Value>)) -> Outcome {
    let Value::Array(array) = value else { return Err(Error::typ(value, "array")) };
    budget::copy(array.items.len() * size_of::<Value>());
    let mut items = array.items.clone();
    change(&mut items);
    Ok(Value::array(items))
}

/// The elements with what `f` gives for each, in the order of that; equal ones as they came.
fn keyed<'a, D: DataT<V<'a> = Value>>(mut cv: jaq_core::Cv<'a, D>) -> Result<Vec<(Vec<Value>, Value)>, Exn<'a, Value>> {
    let (f, context) = cv.0.pop_fun();
    let Value::Array(array) = cv.1 else { return Err(Error::typ(cv.1, "array").into()) };
    let mut keyed = Vec::new();
    for item in &array.items {
        let key: Vec<Value> = f.run((context.clone(), item.clone())).collect::<Result<_, _>>()?;
        budget::copy((key.len() + 1) * size_of::<Value>());
        keyed.push((key, item.clone()));
    }
    keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(keyed)
}

fn grouped(keyed: Vec<(Vec<Value>, Value)>) -> Value {
    let groups = keyed.chunk_by(|(one, _), (other, _)| one == other);
    Value::array(groups.map(|group| Value::array(group.iter().map(|(_, item)| item.clone()))))
}
