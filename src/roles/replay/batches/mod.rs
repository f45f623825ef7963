//! Batches of many replays in the partitions that are ours (docs/ARCHITECTURE.md, The walk of one
//! batch): the list of each is frozen and read beside the loop, and the worker's transactions write its requests, as many as its limits allow.
//!
//! Not to be mixed up with the batches of requests that one transaction is about, see [`super::batch`].

mod freeze;
mod job;
mod jobs;
mod selection;
pub mod submit;

pub use freeze::Freezer;
pub use jobs::{BatchJobs, ExpansionSurroundings};
pub use selection::SagaSelection;
