//! The reader: what it reads from, and its bounds. What it can be asked is in the files beside it.

use std::sync::Arc;

use super::chains::Chains;
use super::high_water_marks::HighWaterMarks;
use crate::cold::reader::ColdReader;
use crate::hot::HotStore;
use crate::saga::state::State;
use crate::saga::stuck::StuckLimits;
use crate::saga::time::Micros;

/// Most entries of one saga that are read at once, unless set otherwise.
pub const MAX_ENTRIES: usize = 100_000;

/// Bytes of entries of one saga that are read at once.
const MAX_BYTES: usize = 256 << 20;

/// The reader. Cheap to clone.
#[derive(Clone)]
pub struct History {
    pub(super) hot: Arc<dyn HotStore>,
    pub(super) cold: Arc<ColdReader>,
    pub(super) chains: Arc<Chains>,
    /// Entries of one saga read at once; a longer history is refused `too_large` where all of it is needed.
    pub(super) max_entries: usize,
    /// Their bytes.
    pub(super) max_bytes: usize,
    pub(super) high_water_marks: Arc<HighWaterMarks>,
    /// What this machine takes for the time now.
    pub(super) now: fn() -> Micros,
    /// Of what is written in two folds that of this one is read.
    pub(super) fold: u32,
    /// Whether owners write facts of its sagas into hot's indexes. Of the replay log they do not: there cold alone is searched.
    pub(super) indexed: bool,
    /// How long a saga may rest before it counts as stuck.
    pub(super) stuck: Arc<StuckLimits>,
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
            stuck: Arc::default(),
        }
    }

    /// Believes no `complete_through` that is ahead of this clock.
    pub fn with_clock(self, now: fn() -> Micros) -> Self {
        Self { now, ..self }
    }

    pub fn with_stuck(self, limits: StuckLimits) -> Self {
        Self { stuck: Arc::new(limits), ..self }
    }

    /// By what `complete_through` says of the answer that the state is of.
    pub fn is_stuck(&self, newest: &State, complete_through: Micros) -> bool {
        self.stuck.is_stuck(newest, complete_through)
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
