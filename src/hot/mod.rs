//! The hot store: the newest history of each saga, and the indexes that find sagas by failure and by activity.
//!
//! A copy: everything here can be lost at any moment and is then rewritten by the owner of the partition or read
//! from cold (docs/ARCHITECTURE.md, Guarantees). Knows keys, scores and opaque members; must not know what a member means (`wire::frame`).

mod facts;
pub mod index_bucket;
mod mark;
pub mod memory;
pub mod redis;
mod store;
mod token;

use std::sync::Arc;

use self::redis::RedisHot;
use crate::config;
use crate::config::HotScheme;
use crate::error::{Error, Result};

pub use facts::{ActivityFact, FailureFact, IndexQuery, IndexRead};
pub use mark::{Mark, MarkMove, MarkOutcome};
pub use store::{
    DurableSaga, Hold, HotBatch, HotQuery, HotRead, HotStore, KEPT, Member, SagaWrite, bucket_of, check_owner,
    marks_of_all_buckets,
};
pub use token::{Tokens, Written};
// What other stores must name, such as those of tests.
#[cfg(feature = "testing")]
pub use {store::HotHealth, token::Token};

/// The store that `hot.url` names; connects with the first call. A memory store is a new one each time.
pub fn open(config: &config::HotConfig) -> Result<Arc<dyn HotStore>> {
    match HotScheme::of(&config.url) {
        Some(HotScheme::Redis { .. }) => Ok(Arc::new(RedisHot::open(config)?)),
        Some(HotScheme::Memory) => {
            let start = std::time::Instant::now();
            Ok(Arc::new(memory::MemoryHot::new(config.ttl, Box::new(move || start.elapsed()))))
        }
        None => Err(Error::invalid("config_invalid", format!("hot.url {}", HotScheme::must()))),
    }
}
