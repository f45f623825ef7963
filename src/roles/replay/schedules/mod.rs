//! Schedules and policies in the partitions that are ours (docs/ARCHITECTURE.md, The walk of one policy): each is a record in the
//! log; its owner writes the requests that are due in the transaction that says so there, so each is made once.

mod job;
mod jobs;
pub mod policy_scan;
pub mod preview;
pub mod submit;

pub use jobs::ScheduleJobs;
