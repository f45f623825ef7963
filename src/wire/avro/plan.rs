//! How to read the data of one writer's schema for one of our shapes: which fields are kept, under which name, and what
//! their values become. Made once for each schema; [`super::decode`] follows it for every datum.
//!
//! A plan is a flat list of nodes, so a schema that contains itself is a node that is named again. Must not see a datum.

use std::collections::HashMap;

use super::shape::Shape;
pub use super::writer::{Layout, Unit};
use super::writer::{Type, TypeAt, WriterSchema};
use crate::wire::json::quote;

/// Place of a node in its plan.
pub type At = usize;

#[derive(Debug)]
pub struct ReadPlan {
    /// The first is the whole value.
    pub nodes: Vec<PlanNode>,
}

#[derive(Debug)]
pub enum PlanNode {
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
    Record(Vec<PlanField>),
    /// What JSON has no value for.
    Lacking(Layout),
}

#[derive(Debug)]
pub struct PlanField {
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
struct Todo<'s> {
    at: At,
    of: TypeAt,
    want: Want<'s>,
    path: String,
}

struct Maker<'w, 's> {
    writer: &'w WriterSchema,
    nodes: Vec<PlanNode>,
    // A list, not recursion: a chain of names may be as long as the schema's text.
    todo: Vec<Todo<'s>>,
    /// Records made or to be made, by definition and want.
    records: HashMap<(TypeAt, usize), At>,
}

impl ReadPlan {
    pub fn new(writer: &WriterSchema, shape: &Shape) -> Self {
        let mut maker = Maker { writer, nodes: Vec::new(), todo: Vec::new(), records: HashMap::new() };
        maker.add(writer.root, Want::Shaped(shape), String::new());
        while let Some(todo) = maker.todo.pop() {
            let at = todo.at;
            maker.nodes[at] = maker.make(todo);
        }
        Self { nodes: maker.nodes }
    }
}

impl<'s> Maker<'_, 's> {
    fn add(&mut self, of: TypeAt, want: Want<'s>, path: String) -> At {
        let at = self.nodes.len();
        let (of, found) = self.writer.at(of);
        if matches!(found, Type::Record(_)) {
            let known = *self.records.entry((of, want.key())).or_insert(at);
            if known != at {
                return known;
            }
        }
        // Until it is made.
        self.nodes.push(PlanNode::Null);
        self.todo.push(Todo { at, of, want, path });
        at
    }

    fn make(&mut self, Todo { of, want, path, .. }: Todo<'s>) -> PlanNode {
        match self.writer.at(of).1 {
            Type::Null | Type::Same(_) => PlanNode::Null,
            Type::Bool => PlanNode::Bool,
            Type::Int => PlanNode::Int,
            // What our schema has as a time is a long of microseconds also for a writer that does not say so.
            Type::Long if want.admits(&Shape::Time) => PlanNode::Time(Unit::Micros, true),
            Type::Long => PlanNode::Long,
            Type::Float => PlanNode::Float,
            Type::Double => PlanNode::Double,
            // Bytes and strings are written alike, and either can be read as the other (Avro, "Schema Resolution").
            Type::Text | Type::Bytes if want.admits(&Shape::JsonText) => PlanNode::JsonText,
            Type::Bytes if want.admits(&Shape::Text) => PlanNode::Text,
            Type::Text => PlanNode::Text,
            Type::Bytes => PlanNode::Lacking(Layout::Bytes),
            Type::Uuid(with_length) => PlanNode::Uuid(*with_length),
            Type::Time(unit, zone) => PlanNode::Time(*unit, *zone),
            Type::Lacking(layout) => PlanNode::Lacking(*layout),
            Type::Enum(symbols) => PlanNode::Enum(symbols.iter().map(|symbol| quoted(symbol)).collect()),
            Type::Array(items) => PlanNode::Array(self.add(*items, want.inner(), path)),
            Type::Map(values) => PlanNode::Map(self.add(*values, want.inner(), path)),
            Type::Union(branches) => {
                PlanNode::Union(branches.iter().map(|branch| self.add(*branch, want, path.clone())).collect())
            }
            Type::Record(fields) => self.record(fields, want, &path),
        }
    }

    fn record(&mut self, fields: &[(String, TypeAt)], want: Want<'s>, path: &str) -> PlanNode {
        let ours = match want {
            Want::Shaped(shape) if shape.is_record() => Some(shape),
            _ => None,
        };
        let fields = fields.iter().map(|(name, of)| {
            let (want, below) = match (ours, want) {
                (Some(shape), _) => match shape.field(name) {
                    Some(known) => {
                        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        (Want::Shaped(&known.shape), Some(below))
                    }
                    None => (Want::Skipped, None),
                },
                (None, Want::Skipped) => (Want::Skipped, None),
                // JSON: every field, whatever is in it. A map: the fields are its members. Anything else: a value that
                // is of the wrong type whatever it holds.
                (None, want) => (want.inner(), None),
            };
            PlanField {
                key: (!matches!(want, Want::Skipped)).then(|| quoted(name) + ":"),
                node: self.add(*of, want, below.clone().unwrap_or_default()),
                path: below,
                drop_null: matches!(want, Want::Shaped(_)),
            }
        });
        PlanNode::Record(fields.collect())
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    quote(&mut out, text);
    out
}
