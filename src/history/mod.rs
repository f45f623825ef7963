//! One reader over hot and cold: states at a time, pages of history, differences, checkpoints, search, lineage.
//!
//! Asks hot first and believes it inside marks only; what hot cannot vouch for comes from cold. Knows entries and
//! chains; must not know Redis, S3 or Kafka, and writes nothing. One reader sees one kind of topic: the events, or
//! the replay log, which goes through the same stores.

pub mod answer;
pub mod chains;
mod cursor;
mod folds;
mod high_water_marks;
mod homes;
pub mod known;
mod lineage;
mod load;
pub mod merge;
pub mod newest;
mod pages;
mod progress;
mod search;
mod slices;
mod state;
#[cfg(test)]
mod tests;
mod whole;

use std::sync::Arc;

use crate::cold::reader::ColdReader;
use crate::hot::HotStore;
use crate::saga::time::Micros;
use chains::Chains;
use high_water_marks::HighWaterMarks;
pub use lineage::ChildrenOf;
pub use progress::{Progress, marks_of_all_buckets};
pub use search::ReplayStandingLookup;

/// Most entries of one saga that are read at once, unless set otherwise.
pub const MAX_ENTRIES: usize = 100_000;

/// Bytes of entries of one saga that are read at once.
const MAX_BYTES: usize = 256 << 20;

/// The reader. Cheap to clone.
#[derive(Clone)]
pub struct History {
    hot: Arc<dyn HotStore>,
    cold: Arc<ColdReader>,
    chains: Arc<Chains>,
    /// Entries of one saga read at once; a longer history is refused `too_large` where all of it is needed.
    max_entries: usize,
    /// Their bytes.
    max_bytes: usize,
    high_water_marks: Arc<HighWaterMarks>,
    /// What this machine takes for the time now.
    now: fn() -> Micros,
    /// Of what is written in two folds that of this one is read.
    fold: u32,
    /// Whether owners write facts of its sagas into hot's indexes. Of the replay log they do not: there cold alone is searched.
    indexed: bool,
}

impl History {
    pub fn new(hot: Arc<dyn HotStore>, cold: Arc<ColdReader>, chains: Arc<Chains>, max_entries: usize) -> Self {
        Self {
            hot,
            cold,
            chains,
            max_entries,
            max_bytes: MAX_BYTES,
            high_water_marks: Arc::default(),
            now: || Micros::MAX,
            fold: 0,
            indexed: true,
        }
    }

    /// Believes no `complete_through` that is ahead of this clock.
    pub fn with_clock(self, now: fn() -> Micros) -> Self {
        Self { now, ..self }
    }

    /// Of sagas that are in no index of hot: a search finds what is durable.
    pub fn without_index(self) -> Self {
        Self { indexed: false, ..self }
    }

    /// Reads what owners with this fold have written where others have too.
    pub fn with_fold(self, fold: u32) -> Self {
        Self { fold, ..self }
    }
}
