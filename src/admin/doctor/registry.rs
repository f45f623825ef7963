//! The schema registry, and whether it takes our schemas.

use super::check::{Check, Verdict, ok};
use crate::config::Config;
use crate::error::Result;
use crate::schema_registry::SchemaRegistry;
use crate::serve::schemas_of;

/// Does the registry answer, and does it hold our topics to schemas that ours can be exchanged with?
pub async fn check(config: &Config) -> Result<Check> {
    let registry = SchemaRegistry::new(&config.registry.url)?;
    for (topic, schema) in schemas_of(&config.topics) {
        if !registry.would_take(topic, schema).await? {
            return Ok(Check {
                check: "registry".into(),
                verdict: Verdict::Problem,
                detail: format!("subject {topic}-value holds the topic to a schema that resaga's cannot be exchanged with"),
                remedy: Some("remove the foreign schema from the subject, or use another topic".into()),
                exit: Some(2),
            });
        }
    }
    Ok(ok("registry", "answers; takes the schemas of resaga's topics"))
}
