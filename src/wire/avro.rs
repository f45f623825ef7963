//! Avro in Confluent framing, to and from the JSON text that the readers and writers of `wire` share: one set of rules
//! for both formats. Schemas are parsed by `apache_avro`; data are read here, because that crate takes a datum that
//! breaks off for one with nulls at its end, and recurses as deep as the datum says.
//!
//! Knows schema ids, writer schemas and the schemas of `schemas/*.avsc`; must not know where a registry is.

mod datum;
mod decode;
mod encode;
mod plan;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::schema::ResolvedSchema;
use uuid::Uuid;

use super::fields::Wrong;
use crate::error::{Error, Result};

pub(super) use decode::to_json;
pub(super) use plan::Plan;
pub(super) use shape::Shape;

/// The schemas that this program writes, as they are registered.
pub mod texts {
    pub const STEP_EVENT: &str = include_str!("../../schemas/StepEvent.avsc");
    pub const REPLAY_REQUEST: &str = include_str!("../../schemas/ReplayRequest.avsc");
    pub const RESTORED_SAGA: &str = include_str!("../../schemas/RestoredSaga.avsc");
    pub const REPLAY_LOG_ENTRY: &str = include_str!("../../schemas/ReplayLogEntry.avsc");
}

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
    known: RwLock<HashMap<SchemaRef, Writer>>,
}

/// A writer's schema, and how to read it for those of our shapes that were asked for.
#[derive(Debug)]
struct Writer {
    schema: Schema,
    plans: Vec<(&'static Shape, Arc<Plan>)>,
}

/// What a look-up of a schema gives.
#[derive(Debug, Clone)]
pub(super) enum Lookup {
    Known(Arc<Plan>),
    /// Ask the registry, then decode again.
    Ask,
    NoRegistry,
}

impl Schemas {
    /// `registry`: is there one to ask?
    pub fn new(registry: bool) -> Self {
        Self { registry, known: RwLock::default() }
    }

    pub(super) fn has_registry(&self) -> bool {
        self.registry
    }

    /// Remembers a schema as the registry gave it. `Corrupt`: it is not an Avro schema that stands alone; records
    /// written with it cannot be read.
    pub fn insert(&self, of: SchemaRef, text: &str) -> Result<()> {
        let alone = |_| Error::corrupt(format!("parse schema with {of}: not an Avro schema that stands alone"));
        let schema = Schema::parse_str(text).map_err(alone)?;
        ResolvedSchema::new(&schema).map_err(alone)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(of, Writer { schema, plans: Vec::new() });
        Ok(())
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
        // Two that make it at the same time make the same one.
        let plan = Arc::new(Plan::new(&writer.schema, shape));
        writer.plans.push((shape, plan.clone()));
        Lookup::Known(plan)
    }
}

/// JSON text as a framed Avro value, where all its members are our own: one that does not fit is a mistake of ours.
pub(super) fn from_json(shape: &Shape, id: SchemaId, json: &str) -> Result<Vec<u8>> {
    from_given_json(shape, id, json).map_err(|wrong| Error::bug(format!("encode Avro: {wrong}")))
}

/// The same of JSON text that others gave.
pub(super) fn from_given_json(shape: &Shape, id: SchemaId, json: &str) -> Result<Vec<u8>, Wrong> {
    let mut out = Vec::with_capacity(json.len());
    out.push(MAGIC);
    out.extend_from_slice(&id.0.to_be_bytes());
    encode::object(shape, json, &mut out)?;
    Ok(out)
}
