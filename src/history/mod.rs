//! One reader over hot and cold: states at a time, pages of history, differences, checkpoints, search, lineage.
//!
//! Asks hot first and believes it inside marks only; what hot cannot vouch for comes from cold. Knows entries and
//! chains; must not know Redis, S3 or Kafka, and writes nothing. One reader sees one kind of topic: the events, or
//! the replay log, which goes through the same stores.

pub mod answer;
pub mod chains;
mod cursor;
mod failed_entries;
mod folds;
mod high_water_marks;
mod homes;
pub mod known;
mod lineage;
mod load;
mod loaded;
mod membership;
pub mod merge;
pub mod newest;
pub mod open_sagas;
mod pages;
mod progress;
mod reader;
pub mod replay_lookup;
mod search;
mod slices;
mod state;
#[cfg(test)]
mod tests;
mod whole;

pub use progress::MaterializeProgress;
pub use reader::{History, MAX_ENTRIES};
