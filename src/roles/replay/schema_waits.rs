//! Schemas that requests wait for: asked for beside the loop of the role.

use std::sync::Arc;
use std::time::Instant;

use super::queue::requests::PARTITION_RESTS;
use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::schema_registry::SchemaRegistry;
use crate::schema_registry::lookups::{SchemaLookup, SchemaLookups};
use crate::wire::avro::{SchemaRef, Schemas};

pub struct SchemaWaits {
    lookups: SchemaLookups,
    backoff: Backoff,
}

/// What came of a look-up: from when on the records that need the schema may be looked at again.
pub struct SchemaAnswer {
    pub schema: SchemaRef,
    pub is_missing: bool,
    pub again: Instant,
}

impl SchemaWaits {
    pub fn new(registry: Option<Arc<SchemaRegistry>>, schemas: Arc<Schemas>) -> Self {
        Self { lookups: SchemaLookups::new(registry, schemas), backoff: Backoff::new("learn schema of a replay request") }
    }

    /// There is nobody to ask, or somebody said a moment ago that there is none.
    pub fn is_missing(&self, schema: SchemaRef) -> bool {
        self.lookups.is_missing(schema)
    }

    pub fn ask(&mut self, schema: SchemaRef) {
        self.lookups.ask(schema);
    }

    pub fn is_idle(&self) -> bool {
        self.lookups.is_idle()
    }

    /// The next answer of the registry; `None`: nothing was asked. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<SchemaLookup>> {
        self.lookups.next().await
    }

    /// What follows from an answer.
    pub fn answered(&mut self, (schema, known): SchemaLookup, now: Instant) -> Result<SchemaAnswer> {
        let again = match &known {
            Ok(_) => {
                self.backoff.succeeded();
                now
            }
            Err(Error::Unavailable(reason)) => now + self.backoff.failed(reason).max(PARTITION_RESTS),
            Err(other) => return Err(other.clone()),
        };
        Ok(SchemaAnswer { schema, is_missing: known == Ok(false), again })
    }
}
