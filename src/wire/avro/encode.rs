//! JSON text as Avro bytes, by one of our schemas. Written here because the crate's values keep maps in random order, and
//! a record built twice must have the same bytes.

use super::shape::Shape;
use crate::saga::time::Micros;
use crate::wire::fields::FieldError;
use crate::wire::json::{OWN_MAX_DEPTH, Raw, read_value};

/// Appends the datum of an object. `Err`: a member does not fit its schema, which those that a request's command does
/// not read may well not do.
pub fn object(shape: &Shape, json: &str, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let raw = read_value(json.as_bytes(), OWN_MAX_DEPTH).map_err(|e| FieldError(e.to_string()))?;
    let mut unfit = None;
    value(shape, raw, out, &mut unfit).ok_or_else(|| match unfit {
        Some(name) => FieldError(format!("field \"{name}\" does not fit its schema")),
        None => FieldError("not an object of its schema".into()),
    })
}

/// `None`: it does not fit; `unfit` is the field that does not, the innermost that our schema names.
fn value<'s>(shape: &'s Shape, raw: Raw<'_>, out: &mut Vec<u8>, unfit: &mut Option<&'s str>) -> Option<()> {
    match shape {
        Shape::Null => raw.is_null().then_some(()),
        Shape::Bool => raw.bool().map(|b| out.push(u8::from(b))),
        Shape::Integer => raw.i64().map(|n| long(n, out)),
        Shape::Text => raw.string().map(|s| text(&s, out)),
        Shape::JsonText => {
            text(raw.text(), out);
            Some(())
        }
        Shape::Time => raw.string()?.parse::<Micros>().ok().map(|at| long(at.0, out)),
        Shape::Enum(symbols) => {
            let symbol = raw.string()?;
            let place = symbols.iter().position(|s| *s == symbol)?;
            long(place as i64, out);
            Some(())
        }
        Shape::Array(inner) => {
            let elements = raw.array()?;
            if !elements.is_empty() {
                long(elements.len() as i64, out);
            }
            for element in elements {
                value(inner, element, out, unfit)?;
            }
            long(0, out);
            Some(())
        }
        Shape::Map(inner) => {
            let object = raw.object()?;
            let members = object.members();
            if !members.is_empty() {
                long(members.len() as i64, out);
            }
            for (name, member) in members {
                text(name, out);
                value(inner, member, out, unfit)?;
            }
            long(0, out);
            Some(())
        }
        Shape::Union(variants) => {
            let (place, variant) = variants.iter().enumerate().find(|(_, variant)| fits(variant, raw))?;
            long(place as i64, out);
            value(variant, raw, out, unfit)
        }
        Shape::Record(fields) => {
            let object = raw.object()?;
            for field in fields {
                let member = match (object.get(&field.name), &field.default) {
                    (Some(member), _) => Some(member),
                    (None, Some(default)) => read_value(default.as_bytes(), OWN_MAX_DEPTH).ok(),
                    (None, None) => None,
                };
                if member.and_then(|member| value(&field.shape, member, out, unfit)).is_none() {
                    unfit.get_or_insert(&field.name);
                    return None;
                }
            }
            Some(())
        }
    }
}

fn fits(shape: &Shape, raw: Raw<'_>) -> bool {
    match shape {
        Shape::Null => raw.is_null(),
        Shape::Bool => raw.bool().is_some(),
        Shape::Integer => raw.i64().is_some(),
        Shape::Text | Shape::Time | Shape::Enum(_) => raw.text().starts_with('"'),
        Shape::JsonText => !raw.is_null(),
        Shape::Array(_) => raw.is_array(),
        Shape::Map(_) | Shape::Record(_) => raw.is_object(),
        Shape::Union(variants) => variants.iter().any(|variant| fits(variant, raw)),
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    long(text.len() as i64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Zig-zag, then seven bits a byte, lowest first (Avro specification, "Primitive types").
fn long(n: i64, out: &mut Vec<u8>) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
