//! How to read the data of one writer's schema for one of our shapes: which fields are kept, under which name, and what
//! their values become. Made once for each schema; [`super::decode`] follows it for every datum.
//!
//! A plan is a flat list of nodes, so a schema that contains itself is a node that is named again. Must not see a datum.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, ResolvedSchema, UuidSchema};

use super::shape::Shape;
use crate::wire::json::quote;

/// Place of a node in its plan.
pub type At = usize;

#[derive(Debug)]
pub struct Plan {
    /// The first is the whole value.
    pub nodes: Vec<Node>,
}

#[derive(Debug)]
pub enum Node {
    Null,
    Bool,
    Int,
    Long,
    Float,
    Double,
    Text,
    /// A string that holds JSON.
    JsonText,
    /// A long, written as a time: with `Z`, or without a zone for what the writer calls local.
    Time(Unit, bool),
    /// Sixteen bytes: with their length before them?
    Uuid(bool),
    /// Symbols with their quotes.
    Enum(Vec<String>),
    Array(At),
    Map(At),
    Union(Vec<At>),
    Record(Vec<Field>),
    /// What JSON has no value for.
    Lacking(Layout),
    /// A name without a definition.
    Undefined,
}

#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// How long a value is that is not looked into.
#[derive(Debug, Clone, Copy)]
pub enum Layout {
    Int,
    Long,
    Bytes,
    Fixed(usize),
}

#[derive(Debug)]
pub struct Field {
    /// `"name":`, ready to be written; `None`: it is skipped.
    pub key: Option<String>,
    /// Where it stands, for messages; `None`: what is around it is named instead.
    pub path: Option<String>,
    pub node: At,
    /// Is a null left out? Where our schema has a record null is absent; where it has JSON null is a value.
    pub drop_null: bool,
}

/// What is wanted of a value.
#[derive(Debug, Clone, Copy)]
enum Want<'s> {
    /// Only where it ends.
    Skipped,
    /// All of it, as JSON.
    Whole,
    Shaped(&'s Shape),
}

impl<'s> Want<'s> {
    fn admits(self, shape: &Shape) -> bool {
        matches!(self, Self::Shaped(wanted) if wanted.admits(shape))
    }
    /// Of elements or of values of a map.
    fn inner(self) -> Self {
        match self {
            Self::Shaped(shape) => shape.inner().map_or(Self::Whole, Self::Shaped),
            other => other,
        }
    }
    /// Tells it from any other want: our schemas do not contain themselves, so each of their places has one address.
    fn key(self) -> usize {
        match self {
            Self::Skipped => 0,
            Self::Whole => 1,
            Self::Shaped(shape) => std::ptr::from_ref(shape).addr(),
        }
    }
}

/// A node to be made.
struct Todo<'w, 's> {
    at: At,
    schema: &'w Schema,
    namespace: Option<String>,
    want: Want<'s>,
    path: String,
}

struct Maker<'w, 's> {
    names: HashMap<Name, &'w Schema>,
    nodes: Vec<Node>,
    // A list, not recursion: a chain of names may be as long as the schema's text.
    todo: Vec<Todo<'w, 's>>,
    /// Records made or to be made, by definition and want.
    records: HashMap<(*const Schema, usize), At>,
}

impl Plan {
    pub fn new(writer: &Schema, shape: &Shape) -> Self {
        let names = ResolvedSchema::new(writer).map(|resolved| resolved.get_names().clone()).unwrap_or_default();
        let mut maker = Maker { names, nodes: Vec::new(), todo: Vec::new(), records: HashMap::new() };
        maker.add(writer, None, Want::Shaped(shape), String::new());
        while let Some(todo) = maker.todo.pop() {
            let at = todo.at;
            maker.nodes[at] = maker.make(todo);
        }
        Self { nodes: maker.nodes }
    }
}

impl<'w, 's> Maker<'w, 's> {
    fn add(&mut self, schema: &'w Schema, namespace: Option<String>, want: Want<'s>, path: String) -> At {
        let at = self.nodes.len();
        let (schema, namespace) = match schema {
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace.as_deref());
                match self.names.get(name.as_ref()) {
                    Some(schema) => (*schema, name.namespace().map(str::to_owned)),
                    None => {
                        self.nodes.push(Node::Undefined);
                        return at;
                    }
                }
            }
            schema => (schema, namespace),
        };
        if matches!(schema, Schema::Record(_)) {
            let known = *self.records.entry((std::ptr::from_ref(schema), want.key())).or_insert(at);
            if known != at {
                return known;
            }
        }
        self.nodes.push(Node::Undefined);
        self.todo.push(Todo { at, schema, namespace, want, path });
        at
    }

    fn make(&mut self, Todo { schema, namespace, want, path, .. }: Todo<'w, 's>) -> Node {
        match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Bool,
            Schema::Int => Node::Int,
            // What our schema has as a time is a long of microseconds also for a writer that does not say so.
            Schema::Long if want.admits(&Shape::Time) => Node::Time(Unit::Micros, true),
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::String if want.admits(&Shape::JsonText) => Node::JsonText,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Uuid(UuidSchema::Bytes) => Node::Uuid(true),
            Schema::Uuid(UuidSchema::Fixed(fixed)) if fixed.size == 16 => Node::Uuid(false),
            Schema::TimestampMillis => Node::Time(Unit::Millis, true),
            Schema::TimestampMicros => Node::Time(Unit::Micros, true),
            Schema::TimestampNanos => Node::Time(Unit::Nanos, true),
            Schema::LocalTimestampMillis => Node::Time(Unit::Millis, false),
            Schema::LocalTimestampMicros => Node::Time(Unit::Micros, false),
            Schema::LocalTimestampNanos => Node::Time(Unit::Nanos, false),
            Schema::Enum(of) => Node::Enum(of.symbols.iter().map(|symbol| quoted(symbol)).collect()),
            Schema::Array(array) => Node::Array(self.add(&array.items, namespace, want.inner(), path)),
            Schema::Map(map) => Node::Map(self.add(&map.types, namespace, want.inner(), path)),
            Schema::Union(union) => {
                Node::Union(union.variants().iter().map(|v| self.add(v, namespace.clone(), want, path.clone())).collect())
            }
            Schema::Record(record) => self.record(record, namespace, want, &path),
            Schema::Date | Schema::TimeMillis => Node::Lacking(Layout::Int),
            Schema::TimeMicros => Node::Lacking(Layout::Long),
            Schema::Bytes | Schema::BigDecimal => Node::Lacking(Layout::Bytes),
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Node::Lacking(Layout::Fixed(fixed.size))
            }
            Schema::Decimal(decimal) => Node::Lacking(match &decimal.inner {
                InnerDecimalSchema::Bytes => Layout::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Layout::Fixed(fixed.size),
            }),
            Schema::Ref { .. } => Node::Undefined,
        }
    }

    fn record(&mut self, record: &'w RecordSchema, namespace: Option<String>, want: Want<'s>, path: &str) -> Node {
        let name = record.name.fully_qualified_name(namespace.as_deref());
        let namespace = name.namespace().map(str::to_owned);
        let ours = match want {
            Want::Shaped(shape) if shape.is_record() => Some(shape),
            _ => None,
        };
        let fields = record.fields.iter().map(|field| {
            let (want, below) = match (ours, want) {
                (Some(shape), _) => match shape.field(&field.name) {
                    Some(known) => {
                        let below = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
                        (Want::Shaped(&known.shape), Some(below))
                    }
                    None => (Want::Skipped, None),
                },
                (None, Want::Skipped) => (Want::Skipped, None),
                // JSON: every field, whatever is in it. A map: the fields are its members. Anything else: a value that
                // is of the wrong type whatever it holds.
                (None, want) => (want.inner(), None),
            };
            Field {
                key: (!matches!(want, Want::Skipped)).then(|| quoted(&field.name) + ":"),
                node: self.add(&field.schema, namespace.clone(), want, below.clone().unwrap_or_default()),
                path: below,
                drop_null: matches!(want, Want::Shaped(_)),
            }
        });
        Node::Record(fields.collect())
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    quote(&mut out, text);
    out
}
