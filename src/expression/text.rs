//! Values from JSON texts and back.

use std::rc::Rc;

use super::budget;
use super::number::Number;
use super::value::Value;
use crate::wire::json::{OWN_MAX_DEPTH, Raw, quote, read_value};

/// `None`: not JSON, or nested too deep.
pub fn read(text: &str) -> Option<Value> {
    budget::copy(text.len());
    read_value(text.as_bytes(), OWN_MAX_DEPTH).ok().map(value)
}

fn value(raw: Raw<'_>) -> Value {
    budget::read(raw.text().len());
    if let Some(object) = raw.object() {
        return Value::object(object.members().into_iter().map(|(name, raw)| (Rc::from(name), value(raw))));
    }
    if let Some(array) = raw.array() {
        return Value::array(array.into_iter().map(value));
    }
    if let Some(text) = raw.string() {
        return Value::string(text);
    }
    match (raw.text(), raw.bool()) {
        ("null", _) => Value::Null,
        (_, Some(bool)) => Value::Bool(bool),
        (number, None) => Value::Number(Number::of_json(number)),
    }
}

/// As JSON. Numbers that JSON does not have are null.
pub fn write(value: &Value) -> String {
    budget::copy(value.bytes());
    let mut out = String::with_capacity(value.bytes());
    append(&mut out, value);
    out
}

fn append(out: &mut String, value: &Value) {
    budget::step();
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => quote(out, text),
        Value::Array(array) => {
            out.push('[');
            for (at, item) in array.items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                append(out, item);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (at, (name, value)) in object.members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(out, name);
                out.push(':');
                append(out, value);
            }
            out.push('}');
        }
    }
}

/// Has it numbers that JSON does not have?
pub fn is_json(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_json(),
        Value::Array(array) => array.items.iter().all(is_json),
        Value::Object(object) => object.members.values().all(is_json),
        _ => true,
    }
}
