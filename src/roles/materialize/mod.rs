//! The role that folds: records of step topics (and of the replay log) become entries, hot and cold.
//!
//! decode -> load missing sagas -> fold -> hot entries, then marks -> cold chain -> commit. The loop (`worker`) waits for a value
//! and hands it on; what takes time (hot writes, flushes, asking for ends) runs beside it, at most one hot write and one
//! flush per partition at once. Two owners of one partition are harmless: both write the same.
//!
//! | duty | files |
//! |---|---|
//! | owning partitions | `assignment`, `chain_check`, `partitions`, `ownership`, `chain_conflict`, `lost_offsets`, `alarms` |
//! | folding | `fold_queue`, `fold_gate`, `fold`, `decode`, `saga_loader`, `fold_events`, `partition`, `saga_cache`, `packed_saga`, `undurable` |
//! | the hot store | `hot_pipeline`, `hot_writer`, `marks`, `hot_expiry`, `index_facts`, `indexed_names`, `index_sweep` |
//! | the cold store | `cold_pipeline`, `flush`, `partition_chain` |
//! | records that are sent | `outbound`, `outcome` |
//! | in the process | `task`, `settings`, `worker`, `background` |
//! | how far it is | `completeness`, `clocks`, `gauges` |
//! | which sagas are stuck | `open_sagas`, `stuck_sagas` |
//! | what producers did wrong | `misplaced_events`, `partition_conflicts`, `sequence_conflicts` |

mod alarms;
mod assignment;
mod background;
mod chain_check;
mod chain_conflict;
mod clocks;
mod cold_pipeline;
mod completeness;
mod content;
mod decode;
mod flush;
mod fold;
mod fold_events;
mod fold_gate;
mod fold_queue;
mod gauges;
mod hot_expiry;
mod hot_pipeline;
mod hot_writer;
mod index_facts;
mod index_sweep;
mod indexed_names;
mod lost_offsets;
mod marks;
mod misplaced_events;
mod open_sagas;
mod outbound;
mod outcome;
mod ownership;
mod packed_saga;
mod partition;
mod partition_chain;
mod partition_conflicts;
mod partitions;
mod saga_cache;
mod saga_loader;
mod sequence_conflicts;
mod settings;
mod stuck_sagas;
pub mod task;

#[cfg(test)]
mod tests;
mod undurable;
mod worker;

pub use chain_check::{LogBounds, chain_mismatch};
pub use settings::{Dependencies, Settings};
pub use worker::Materialize;
