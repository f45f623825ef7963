//! The requests of the partitions that are ours: what is read, parked, skipped or suspended, and how many may go.
//!
//! Without I/O and without the log: the worker brings records in, asks what is to be decided next and what to tell the intake, and
//! says what was committed. Until then nothing of it changes.

mod after_commit;
pub mod item;
pub mod parked;
mod partition;
mod rate_limiter;
mod read_records;
pub mod reading;
pub mod requests;
pub mod skipped;

pub use rate_limiter::RateLimiter;
pub use requests::RequestQueue;
