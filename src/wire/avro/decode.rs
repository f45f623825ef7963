//! An Avro datum as JSON text, as a [`ReadPlan`] says. Bounded in depth, in time and in memory by the datum's length,
//! whatever the datum says of itself.
//!
//! A datum that breaks off or goes on too long is unreadable. A value that JSON lacks, where our schema has a field, is
//! of the wrong type: all else is still read, so that the caller can tell the one from the other.

use std::fmt::Write;

use uuid::Uuid;

use super::datum::Datum;
use super::plan::{At, Layout, PlanField, PlanNode, ReadPlan, Unit};
use crate::saga::time::Micros;
use crate::wire::fields::FieldError;
use crate::wire::json::{OWN_MAX_DEPTH, quote, read_value};

/// Values that a datum may hold, however few bytes each takes (a null takes none): so many, and so many a byte.
const VALUES: usize = 4_096;
const VALUES_PER_BYTE: usize = 8;
/// Bytes of JSON that a datum may become, likewise; names and symbols stand in the schema, not in the datum.
const JSON: usize = 1 << 20;
const JSON_PER_BYTE: usize = 64;

const TOO_MUCH: &str = "the Avro value holds far more than its length";

/// The object's text, and the first field whose value JSON lacks, which stands there as null; or why the datum cannot be
/// read. Neither quotes a value.
pub fn to_json(plan: &ReadPlan, datum: &[u8]) -> Result<(String, Option<FieldError>), String> {
    let mut decoder = Decoder {
        nodes: &plan.nodes,
        datum: Datum(datum),
        out: String::with_capacity(datum.len() + 512),
        depth: 0,
        values: VALUES + VALUES_PER_BYTE * datum.len(),
        most: JSON + JSON_PER_BYTE * datum.len(),
        field: "",
        wrong: None,
    };
    decoder.root()?;
    if !decoder.datum.is_empty() {
        return Err("more bytes after the Avro value".into());
    }
    Ok((decoder.out, decoder.wrong))
}

struct Decoder<'p, 'd> {
    nodes: &'p [PlanNode],
    datum: Datum<'d>,
    out: String,
    /// Records, arrays and maps around what is read.
    depth: usize,
    /// How many values may still come.
    values: usize,
    /// How long `out` may become.
    most: usize,
    /// Path of the field that is read.
    field: &'p str,
    wrong: Option<FieldError>,
}

type DecodeResult = Result<(), String>;

impl<'p> Decoder<'p, '_> {
    fn root(&mut self) -> DecodeResult {
        let mut at = 0;
        if let Some(PlanNode::Union(branches)) = self.nodes.first() {
            at = branches[self.datum.choice(branches.len())?];
        }
        if !matches!(self.nodes.get(at), Some(PlanNode::Record(_))) {
            return Err("not an Avro record".into());
        }
        self.value(at)
    }

    fn value(&mut self, at: At) -> DecodeResult {
        self.count()?;
        let nodes = self.nodes;
        match &nodes[at] {
            PlanNode::Null => self.out.push_str("null"),
            PlanNode::Bool => self.out.push_str(if self.datum.bool()? { "true" } else { "false" }),
            PlanNode::Int => {
                let n = self.datum.int()?;
                self.print(format_args!("{n}"));
            }
            PlanNode::Long => {
                let n = self.datum.long()?;
                self.print(format_args!("{n}"));
            }
            // Both types print the shortest text that reads back as the same number.
            PlanNode::Float => match self.datum.float()? {
                n if n.is_finite() => self.print(format_args!("{n:?}")),
                _ => self.lacking("is a number that JSON lacks"),
            },
            PlanNode::Double => match self.datum.double()? {
                n if n.is_finite() => self.print(format_args!("{n:?}")),
                _ => self.lacking("is a number that JSON lacks"),
            },
            PlanNode::Text => quote(&mut self.out, self.datum.text()?),
            PlanNode::JsonText => self.json_text()?,
            PlanNode::Time(unit, zone) => self.time(*unit, *zone)?,
            PlanNode::Uuid(with_length) => {
                let bytes = if *with_length { self.datum.bytes()? } else { self.datum.take(16)? };
                let uuid = Uuid::from_slice(bytes).map_err(|_| "a UUID in the Avro value has not 16 bytes")?;
                self.print(format_args!("\"{uuid}\""));
            }
            PlanNode::Enum(symbols) => self.out.push_str(&symbols[self.datum.choice(symbols.len())?]),
            PlanNode::Union(branches) => {
                let branch = self.datum.choice(branches.len())?;
                self.value(branches[branch])?;
            }
            PlanNode::Array(items) => self.array(*items)?,
            PlanNode::Map(values) => self.map(*values)?,
            PlanNode::Record(fields) => self.record(fields)?,
            PlanNode::Lacking(layout) => {
                self.pass(*layout)?;
                self.lacking("has a type that JSON lacks");
            }
        }
        Ok(())
    }

    /// Reads a value that nobody wants.
    fn skip(&mut self, at: At) -> DecodeResult {
        self.count()?;
        let nodes = self.nodes;
        match &nodes[at] {
            PlanNode::Null => {}
            PlanNode::Bool => drop(self.datum.bool()?),
            PlanNode::Int => self.pass(Layout::Int)?,
            PlanNode::Long | PlanNode::Time(..) => self.pass(Layout::Long)?,
            PlanNode::Float => self.pass(Layout::Fixed(4))?,
            PlanNode::Double => self.pass(Layout::Fixed(8))?,
            PlanNode::Text | PlanNode::JsonText | PlanNode::Uuid(true) => self.pass(Layout::Bytes)?,
            PlanNode::Uuid(false) => self.pass(Layout::Fixed(16))?,
            PlanNode::Enum(symbols) => drop(self.datum.choice(symbols.len())?),
            PlanNode::Union(branches) => {
                let branch = self.datum.choice(branches.len())?;
                self.skip(branches[branch])?;
            }
            PlanNode::Array(items) => self.nested(|this| this.blocks(|this, _| this.skip(*items)))?,
            PlanNode::Map(values) => self.nested(|this| {
                this.blocks(|this, _| {
                    this.pass(Layout::Bytes)?;
                    this.skip(*values)
                })
            })?,
            PlanNode::Record(fields) => self.nested(|this| fields.iter().try_for_each(|field| this.skip(field.node)))?,
            PlanNode::Lacking(layout) => self.pass(*layout)?,
        }
        Ok(())
    }

    fn pass(&mut self, layout: Layout) -> DecodeResult {
        match layout {
            Layout::Int => drop(self.datum.int()?),
            Layout::Long => drop(self.datum.long()?),
            Layout::Bytes => drop(self.datum.bytes()?),
            Layout::Fixed(length) => drop(self.datum.take(length)?),
        }
        Ok(())
    }

    fn count(&mut self) -> DecodeResult {
        self.values = self.values.checked_sub(1).ok_or(TOO_MUCH)?;
        if self.out.len() > self.most { Err(TOO_MUCH.into()) } else { Ok(()) }
    }

    fn nested(&mut self, inside: impl FnOnce(&mut Self) -> DecodeResult) -> DecodeResult {
        if self.depth == OWN_MAX_DEPTH {
            return Err("nested too deep".into());
        }
        self.depth += 1;
        inside(self)?;
        self.depth -= 1;
        Ok(())
    }

    /// Each item of all blocks; told whether it is the first.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self, bool) -> DecodeResult) -> DecodeResult {
        let mut first = true;
        loop {
            let count = self.datum.block()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                item(self, first)?;
                first = false;
            }
        }
    }

    fn array(&mut self, items: At) -> DecodeResult {
        self.out.push('[');
        self.nested(|this| {
            this.blocks(|this, first| {
                this.comma(first);
                this.value(items)
            })
        })?;
        self.out.push(']');
        Ok(())
    }

    /// Members as they are written, a name that comes again too: whoever reads JSON takes the last.
    fn map(&mut self, values: At) -> DecodeResult {
        self.out.push('{');
        self.nested(|this| {
            this.blocks(|this, first| {
                this.comma(first);
                quote(&mut this.out, this.datum.text()?);
                this.out.push(':');
                this.value(values)
            })
        })?;
        self.out.push('}');
        Ok(())
    }

    fn record(&mut self, fields: &'p [PlanField]) -> DecodeResult {
        self.out.push('{');
        let around = self.field;
        self.nested(|this| {
            let mut first = true;
            for field in fields {
                let Some(key) = &field.key else {
                    this.skip(field.node)?;
                    continue;
                };
                this.field = field.path.as_deref().unwrap_or(around);
                let before = this.out.len();
                this.comma(first);
                this.out.push_str(key);
                let value = this.out.len();
                this.value(field.node)?;
                if field.drop_null && this.out[value..] == *"null" {
                    this.out.truncate(before);
                } else {
                    first = false;
                }
            }
            Ok(())
        })?;
        self.field = around;
        self.out.push('}');
        Ok(())
    }

    fn comma(&mut self, first: bool) {
        if !first {
            self.out.push(',');
        }
    }

    /// JSON inside JSON: its depth counts from where it stands, as if it had come as JSON.
    fn json_text(&mut self) -> DecodeResult {
        let text = self.datum.text()?;
        let raw =
            read_value(text.as_bytes(), OWN_MAX_DEPTH - self.depth).map_err(|e| format!("field \"{}\": {e}", self.field))?;
        self.out.push_str(raw.text());
        Ok(())
    }

    fn time(&mut self, unit: Unit, zone: bool) -> DecodeResult {
        let n = self.datum.long()?;
        let at = match unit {
            Unit::Millis => n.checked_mul(1_000),
            Unit::Micros => Some(n),
            Unit::Nanos => Some(n.div_euclid(1_000)),
        };
        match at.map(Micros).filter(|at| (Micros::FIRST_WRITABLE..=Micros::LAST_WRITABLE).contains(at)) {
            Some(at) => {
                self.print(format_args!("\"{at}\""));
                if !zone {
                    self.out.truncate(self.out.len() - "Z\"".len());
                    self.out.push('"');
                }
            }
            None => self.lacking("is a time out of range"),
        }
        Ok(())
    }

    fn print(&mut self, what: std::fmt::Arguments<'_>) {
        self.out.write_fmt(what).expect("a String takes all that is written");
    }

    /// A null in place of what cannot be written; the first such field is remembered.
    fn lacking(&mut self, problem: &str) {
        self.out.push_str("null");
        self.wrong.get_or_insert_with(|| FieldError(format!("field \"{}\" {problem}", self.field)));
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
