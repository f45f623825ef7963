//! The replay log: everything that knows it as a whole.
//!
//! - [`view`]: its records in memory, those that wait and the newest others; [`records`], [`batch_tallies`] and [`order`] are below it
//! - [`follow`]: feeds the view from the topic
//! - [`restore`]: brings back into the view what the topic has dropped, from history
//! - [`in_history`]: how history keeps it: each replay as a saga of its own
//! - [`homes`]: in which of its partitions a request's record may be; [`partition_counts`] keeps that up to date
//! - [`owner`]: the header by which each record says whose the log is; [`newest_owners`] reads the newest of them
//!
//! The bytes of a record are [`crate::wire::log`]'s, what the archive remembers of its partition counts
//! [`crate::cold::log_counts`]'. Decides nothing about replays: that is role replay's.

mod batch_tallies;
pub mod follow;
pub mod homes;
pub mod in_history;
pub mod newest_owners;
pub mod order;
pub mod owner;
pub mod partition_counts;
mod records;
pub mod restore;
mod schedule_tallies;
pub mod view;

pub use order::{Place, place};
pub use view::ReplayLog;
