//! Avro in Confluent framing, to and from the JSON text that the readers and writers of `wire` share: one set of rules
//! for both formats. Our own schemas are parsed by `apache_avro`. Those of writers are read here, as it refuses many that
//! Java takes, and so are data, as it takes a datum that breaks off for one with nulls at its end, and recurses as deep as
//! the datum says.
//!
//! Knows schema ids, writer schemas and the schemas of `schemas/*.avsc`; must not know where a registry is.

mod datum;
mod decode;
mod encode;
mod plan;
mod shape;
#[cfg(test)]
mod tests;
pub mod texts;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use super::fields::FieldError;
use crate::error::{Error, Result};

pub(super) use decode::to_json;
pub(super) use plan::ReadPlan;
pub(super) use shape::Shape;
use writer::WriterSchema;

/// First byte of a value with a schema id.
pub(super) const MAGIC: u8 = 0;

/// An id that a registry gave to a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchemaId(pub u32);

/// What a record says of the schema it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaRef {
    Id(SchemaId),
    Guid(Uuid),
}

impl std::fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "id {}", id.0),
            Self::Guid(guid) => write!(f, "guid {guid}"),
        }
    }
}

/// Schemas kept; over it all are forgotten and asked for again.
const MAX_KNOWN: usize = 1_024;

/// The writer schemas seen so far. Shared by all decoders of a process.
#[derive(Debug)]
pub struct Schemas {
    registry: bool,
    known: RwLock<HashMap<SchemaRef, CachedSchema>>,
}

/// A writer's schema, and how to read it for those of our shapes that were asked for; or why nobody here can.
#[derive(Debug)]
struct CachedSchema {
    schema: Result<WriterSchema, Arc<str>>,
    plans: Vec<(&'static Shape, Arc<ReadPlan>)>,
}

/// What a look-up of a schema gives.
#[derive(Debug, Clone)]
pub(super) enum Lookup {
    Known(Arc<ReadPlan>),
    /// Ask the registry, then decode again.
    Ask,
    NoRegistry,
    /// Why the schema cannot be read.
    Unreadable(Arc<str>),
}

impl Schemas {
    /// `registry`: is there one to ask?
    pub fn new(registry: bool) -> Self {
        Self { registry, known: RwLock::default() }
    }

    pub(super) fn has_registry(&self) -> bool {
        self.registry
    }

    /// Remembers a schema that stands alone, as the registry gave it.
    pub fn insert(&self, of: SchemaRef, text: &str) -> Result<()> {
        self.insert_with(of, text, &[])
    }

    /// The same of one that names types of others, which are given. `Corrupt`: this program cannot read it; that is
    /// remembered, too, and told of each record that was written with it.
    pub fn insert_with(&self, of: SchemaRef, text: &str, references: &[String]) -> Result<()> {
        let schema = WriterSchema::parse(text, references).map_err(Arc::from);
        let outcome = schema.as_ref().map(drop).map_err(|why: &Arc<str>| Error::corrupt(unreadable(of, why)));
        self.remember(of, schema);
        outcome
    }

    /// Remembers that a schema cannot be read, and why.
    pub fn refuse(&self, of: SchemaRef, why: &str) {
        self.remember(of, Err(why.into()));
    }

    fn remember(&self, of: SchemaRef, schema: Result<WriterSchema, Arc<str>>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(of, CachedSchema { schema, plans: Vec::new() });
    }

    pub(super) fn get(&self, of: SchemaRef, shape: &'static Shape) -> Lookup {
        match self.known.read().unwrap_or_else(PoisonError::into_inner).get(&of) {
            Some(writer) => {
                if let Some((_, plan)) = writer.plans.iter().find(|(of, _)| std::ptr::eq(*of, shape)) {
                    return Lookup::Known(plan.clone());
                }
            }
            None if self.registry => return Lookup::Ask,
            None => return Lookup::NoRegistry,
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Forgotten in between.
        let Some(writer) = known.get_mut(&of) else { return Lookup::Ask };
        let schema = match &writer.schema {
            Ok(schema) => schema,
            Err(why) => return Lookup::Unreadable(why.clone()),
        };
        // Two that make it at the same time make the same one.
        let plan = Arc::new(ReadPlan::new(schema, shape));
        writer.plans.push((shape, plan.clone()));
        Lookup::Known(plan)
    }
}

/// What is said of a record whose schema is there and cannot be read.
pub(super) fn unreadable(of: SchemaRef, why: &str) -> String {
    format!("this build cannot read the schema with {of}: {why}")
}

/// JSON text as a framed Avro value, where all its members are our own: one that does not fit is a mistake of ours.
pub(super) fn from_json(shape: &Shape, id: SchemaId, json: &str) -> Result<Vec<u8>> {
    from_given_json(shape, id, json).map_err(|wrong| Error::bug(format!("encode Avro: {wrong}")))
}

/// The same of JSON text that others gave.
pub(super) fn from_given_json(shape: &Shape, id: SchemaId, json: &str) -> Result<Vec<u8>, FieldError> {
    let mut out = Vec::with_capacity(json.len());
    out.push(MAGIC);
    out.extend_from_slice(&id.0.to_be_bytes());
    encode::object(shape, json, &mut out)?;
    Ok(out)
}
