//! Pure: ids, events, the fold, the replay plan. No I/O, no clock, no randomness: `now` and ids come in as arguments.

pub mod apply;
pub mod batch;
pub mod batch_counts;
pub mod batch_progress;
pub mod context;
pub mod effects;
pub mod entry;
pub mod event;
pub mod failure;
pub mod fold;
pub mod fold_settings;
pub mod grouping;
pub mod ids;
pub mod installation;
pub mod json;
pub mod json_patch;
pub mod labels;
pub mod lineage;
pub mod log_clock;
pub mod log_record;
mod members;
pub mod partitioner;
pub mod patch;
pub mod plan;
pub mod position;
pub mod replay_filter;
pub mod request;
pub mod restored;
pub mod schedule;
pub mod selector;
pub mod splice;
pub mod state;
pub mod stored_entry;
pub mod stuck;
pub mod time;
pub mod timeline;
pub mod undo;

#[cfg(test)]
mod fold_model;
#[cfg(test)]
pub(crate) mod testing;
