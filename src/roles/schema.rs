//! Getting the schema that a value was written with, where it is not known yet.

use crate::error::{Error, Result};
use crate::kafka::registry::SchemaRegistry;
use crate::wire::avro::{SchemaRef, Schemas};

/// Makes a schema known; `false`: there is none. `Unavailable`: the registry does not answer.
pub async fn learn(registry: Option<&SchemaRegistry>, of: SchemaRef, schemas: &Schemas) -> Result<bool> {
    let Some(registry) = registry else { return Ok(false) };
    match registry.learn(of, schemas).await {
        Ok(()) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}
