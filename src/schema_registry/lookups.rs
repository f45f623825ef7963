//! Getting the schema that a value was written with, where it is not known yet: beside the loop of a role, for the registry may
//! be slow, and only what needs the schema waits for it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::schema_registry::SchemaRegistry;
use crate::wire::avro::{SchemaRef, Schemas};

/// Look-ups of one role at once.
const MAX_CONCURRENT: usize = 8;

/// Makes a schema known; `false`: there is none. `Unavailable`: the registry does not answer.
pub async fn learn(registry: Option<&SchemaRegistry>, of: SchemaRef, schemas: &Schemas) -> Result<bool> {
    let Some(registry) = registry else { return Ok(false) };
    match registry.learn(of, schemas).await {
        Ok(()) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The look-ups of one role. Each is tried once; who needs it asks again.
pub struct SchemaLookups {
    registry: Option<Arc<SchemaRegistry>>,
    schemas: Arc<Schemas>,
    running: JoinSet<SchemaLookup>,
    /// To be asked for next. Each partition waits for one at most, which bounds it.
    queue: VecDeque<SchemaRef>,
    /// In the queue or running.
    asked: HashSet<SchemaRef>,
}

/// A schema, and what [`learn`] gave.
pub type SchemaLookup = (SchemaRef, Result<bool>);

impl SchemaLookups {
    pub fn new(registry: Option<Arc<SchemaRegistry>>, schemas: Arc<Schemas>) -> Self {
        Self { registry, schemas, running: JoinSet::new(), queue: VecDeque::new(), asked: HashSet::new() }
    }

    /// There is no registry, or it said a moment ago that it has no such schema.
    pub fn is_missing(&self, of: SchemaRef) -> bool {
        self.registry.as_ref().is_none_or(|registry| registry.has_given_up(of))
    }

    /// Asks for a schema: [`Self::next`] gives the answer.
    pub fn ask(&mut self, of: SchemaRef) {
        if self.asked.insert(of) {
            self.queue.push_back(of);
            self.start();
        }
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next answer; `None`: nothing was asked. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<SchemaLookup>> {
        let ended = self.running.join_next().await?;
        if let Ok((of, _)) = &ended {
            self.asked.remove(of);
        }
        self.start();
        Some(ended.map_err(|e| Error::bug(format!("look up a schema: {e}"))))
    }

    fn start(&mut self) {
        while self.running.len() < MAX_CONCURRENT
            && let Some(of) = self.queue.pop_front()
        {
            let (registry, schemas) = (self.registry.clone(), self.schemas.clone());
            self.running.spawn(async move { (of, learn(registry.as_deref(), of, &schemas).await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::avro::SchemaId;

    fn id(n: u32) -> SchemaRef {
        SchemaRef::Id(SchemaId(n))
    }

    #[tokio::test]
    async fn many_are_asked_for_a_few_at_a_time_each_once_and_all_are_answered() {
        // Nobody listens there.
        let registry = Arc::new(SchemaRegistry::new("http://127.0.0.1:9").expect("a URL"));
        let mut lookups = SchemaLookups::new(Some(registry), Arc::new(Schemas::new(true)));
        for n in (0..20).chain(0..20) {
            assert!(!lookups.is_missing(id(n)));
            lookups.ask(id(n));
            assert!(lookups.running.len() <= MAX_CONCURRENT);
        }
        let mut answered = HashSet::new();
        while let Some(looked) = lookups.next().await {
            let (of, outcome) = looked.expect("no panic");
            assert!(outcome.is_err_and(|error| error.is_unavailable()) && answered.insert(of));
        }
        assert!(answered.len() == 20 && lookups.is_idle());
    }

    #[test]
    fn without_a_registry_every_schema_is_missing() {
        assert!(SchemaLookups::new(None, Arc::new(Schemas::new(false))).is_missing(id(1)));
    }
}
