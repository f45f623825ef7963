//! The role that replays: requests become restored sagas, exactly once.
//!
//! One transaction for each batch of requests: restored sagas, their SAGA_RESTORED events, log records and the requests'
//! offsets, under the membership the batch was taken up with. Facts are loaded before it begins. Memory changes only
//! after the commit; whatever is not known to be committed is read again and found in the log, or not.
//!
//! A request goes through `worker` (waits), `queue` (read, parked, skipped), `batch` (one batch), `facts` (loads), `decide` (pure),
//! `draft` and `outbox` (what will be written), `commit` and `committer` (the transaction).

mod assignment;
mod batch;
mod batch_metrics;
pub mod batches;
pub mod catch_up;
mod commit;
mod committer;
mod computed_context;
mod decide;
mod draft;
mod facts;
mod histories;
mod history_alarms;
mod history_lookup;
mod incoming;
mod intake_events;
pub mod job_requests;
mod keyed_locks;
mod lineage_replays;
mod log_alarms;
pub mod log_claims;
mod log_end;
pub mod log_overlay;
mod log_record;
mod outbox;
mod oversized;
pub mod planner;
mod queue;
mod reading;
mod reassign;
pub mod replay_records;
mod runner;
pub mod schedules;
mod schema_waits;
mod settings;
mod standing;
pub mod submit;
pub mod task;
mod worker;
mod writable;

#[cfg(test)]
mod tests;

pub use outbox::{ReplayTargets, SchemaIds};
pub use settings::{Dependencies, Settings};
pub use worker::Replay;
