//! What a record's value is: Avro or JSON, told by a header or its first byte (docs/INTERFACE.md, Common rules); and why it is neither.

use std::borrow::Cow;

use bytes::Bytes;
use uuid::Uuid;

use super::avro::{Lookup, MAGIC, SchemaId, SchemaRef, Schemas, Shape, to_json, unreadable};
use super::fields::FieldError;
use super::json::{OWN_MAX_DEPTH, read_object};

/// A record's headers, as `kafka::record` has them.
pub type RecordHeaders = [(String, Option<Bytes>)];

/// Why a record gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDecoded {
    /// It never will: to the dead letters with this code.
    DeadLetter { code: &'static str, message: String },
    /// Ask the registry for this schema, insert it into [`Schemas`], decode again. If the registry has none: a dead
    /// letter, of a step event as [`super::event::schema_missing`] says.
    NeedSchema(SchemaRef),
}

impl NotDecoded {
    pub(super) fn dead(code: &'static str, message: impl Into<String>) -> Self {
        Self::DeadLetter { code, message: message.into() }
    }
    pub(super) fn undecodable(message: impl Into<String>) -> Self {
        Self::dead("undecodable", message)
    }
}

/// The header in which the schema's id may stand instead of before the value.
const SCHEMA_HEADER: &str = "__value_schema_id";
const GUID: u8 = 1;

/// JSON text, not yet read.
pub(super) struct ValueText<'v> {
    pub bytes: Cow<'v, [u8]>,
    /// The first field that JSON lacks a value for; it is null in the text.
    pub wrong: Option<FieldError>,
}

/// The value as JSON text.
pub(super) fn open<'v>(
    value: Option<&'v [u8]>,
    headers: &RecordHeaders,
    schemas: &Schemas,
    shape: &'static Shape,
) -> Result<ValueText<'v>, NotDecoded> {
    let value = value.ok_or_else(|| NotDecoded::undecodable("the value is null"))?;
    if is_json(value, headers) {
        return Ok(ValueText { bytes: Cow::Borrowed(value), wrong: None });
    }
    let (of, datum) = match (schema_header(headers)?, value) {
        (Some(of), datum) => (of, datum),
        (None, [MAGIC, a, b, c, d, datum @ ..]) => (SchemaRef::Id(SchemaId(u32::from_be_bytes([*a, *b, *c, *d]))), datum),
        (None, [MAGIC, ..]) if schemas.has_registry() => {
            return Err(NotDecoded::undecodable("the value ends within its schema id"));
        }
        (None, [MAGIC, ..]) => return Err(no_registry()),
        (None, _) => return Err(NotDecoded::undecodable("the value is neither Avro nor a JSON object")),
    };
    match schemas.get(of, shape) {
        Lookup::Ask => Err(NotDecoded::NeedSchema(of)),
        Lookup::NoRegistry => Err(no_registry()),
        Lookup::Unreadable(why) => Err(NotDecoded::dead("unknown_schema", unreadable(of, &why))),
        Lookup::Known(plan) => {
            let (text, wrong) = to_json(&plan, datum).map_err(NotDecoded::undecodable)?;
            Ok(ValueText { bytes: Cow::Owned(text.into_bytes()), wrong })
        }
    }
}

/// Is it a JSON object, whatever a header says? Serializers of JSON Schema put the schema's id into the same header.
///
/// With that header the value may also be an Avro datum with nothing before it, whose first byte is the length of a
/// string: never `{`, which stands for a negative number, but maybe a space or a line feed (16 or 5 bytes) with a `{`
/// behind it. Such a value is JSON only if it is so to its end, which no step event or request in Avro is: they hold
/// control characters.
fn is_json(value: &[u8], headers: &RecordHeaders) -> bool {
    match (value.first(), value.trim_ascii_start().first()) {
        (Some(b'{'), _) => true,
        (_, Some(b'{')) => !has_schema_header(headers) || read_object(value, OWN_MAX_DEPTH).is_ok(),
        _ => false,
    }
}

fn has_schema_header(headers: &RecordHeaders) -> bool {
    headers.iter().any(|(name, _)| name == SCHEMA_HEADER)
}

fn no_registry() -> NotDecoded {
    NotDecoded::dead("unknown_schema", "an Avro value, but no registry is configured")
}

fn schema_header(headers: &RecordHeaders) -> Result<Option<SchemaRef>, NotDecoded> {
    let Some((_, value)) = headers.iter().rfind(|(name, _)| name == SCHEMA_HEADER) else { return Ok(None) };
    match value.as_deref() {
        Some([GUID, guid @ ..]) if guid.len() == 16 => Ok(Uuid::from_slice(guid).ok().map(SchemaRef::Guid)),
        Some([MAGIC, id @ ..]) if id.len() == 4 => {
            Ok(Some(SchemaRef::Id(SchemaId(id.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))))))
        }
        _ => Err(NotDecoded::undecodable("header __value_schema_id holds no schema id")),
    }
}
