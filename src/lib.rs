//! resaga keeps every saga's history and replays failed sagas exactly once.
//!
//! [`run`] is all that is public: the compiler then sees what nobody uses. Feature `testing` opens the rest to `tests/` and
//! `bench/`.
//!
//! Arrows point downwards only; `tests/tidy/` holds the rule.
//!
//! - [`cli`]: one file a command group; calls the HTTP api or, for work on this machine, `serve`, `admin` and `demo`
//! - [`serve`]: the process: what it is made of, what runs in it, how it ends; the only wiring
//! - [`admin`]: commands that look at or change an installation without being one of its processes
//! - [`demo`]: the story of an outage and its repair, played from outside
//! - [`api`]: HTTP routes
//! - [`roles`]: what a process does: materialize, replay
//! - [`replay_log`]: the replay log: its view in memory, reading it, what its topic has dropped, whose it is
//! - [`partitioning`]: how the producers of step events spread keys over partitions
//! - [`history`]: reading: hot and cold merged into one answer
//! - [`hot`]: `HotStore`: redis, memory
//! - [`cold`]: segment, chain, catalog, `ObjectStore`: s3, directory
//! - [`kafka`]: intake, publisher, topics, mock cluster
//! - [`schema_registry`]: Avro schemas by id, over HTTP
//! - [`expression`]: jq over JSON, bounded in time and memory
//! - [`wire`]: pure: bytes <-> domain
//! - [`config`]: all settings with units and defaults
//! - [`telemetry`]: tracing, and one struct with every metric
//! - [`saga`]: pure: ids, event, fold, timeline, replay plan
//! - for all: [`error`], [`retry`] (the one place for trying again), [`cpu`] (long work on threads of its own), [`failpoint`],
//!   [`nearest`] (the name that was meant by an unknown one)

// Unit tests use the stores of tests/it that fail on a schedule.
#[cfg(test)]
extern crate self as resaga;

#[cfg(not(feature = "testing"))]
mod admin;
#[cfg(feature = "testing")]
pub mod admin;
#[cfg(not(feature = "testing"))]
mod api;
#[cfg(feature = "testing")]
pub mod api;
#[cfg(not(feature = "testing"))]
mod cli;
#[cfg(feature = "testing")]
pub mod cli;
#[cfg(not(feature = "testing"))]
mod cold;
#[cfg(feature = "testing")]
pub mod cold;
#[cfg(not(feature = "testing"))]
mod config;
#[cfg(feature = "testing")]
pub mod config;
#[cfg(not(feature = "testing"))]
mod cpu;
#[cfg(feature = "testing")]
pub mod cpu;
#[cfg(not(feature = "testing"))]
mod demo;
#[cfg(feature = "testing")]
pub mod demo;
#[cfg(not(feature = "testing"))]
mod error;
#[cfg(feature = "testing")]
pub mod error;
#[cfg(not(feature = "testing"))]
mod expression;
#[cfg(feature = "testing")]
pub mod expression;
#[cfg(not(feature = "testing"))]
mod failpoint;
#[cfg(feature = "testing")]
pub mod failpoint;
#[cfg(not(feature = "testing"))]
mod history;
#[cfg(feature = "testing")]
pub mod history;
#[cfg(not(feature = "testing"))]
mod hot;
#[cfg(feature = "testing")]
pub mod hot;
#[cfg(not(feature = "testing"))]
mod kafka;
#[cfg(feature = "testing")]
pub mod kafka;
#[cfg(not(feature = "testing"))]
mod nearest;
#[cfg(feature = "testing")]
pub mod nearest;
#[cfg(not(feature = "testing"))]
mod partitioning;
#[cfg(feature = "testing")]
pub mod partitioning;
#[cfg(not(feature = "testing"))]
mod replay_log;
#[cfg(feature = "testing")]
pub mod replay_log;
#[cfg(not(feature = "testing"))]
mod retry;
#[cfg(feature = "testing")]
pub mod retry;
#[cfg(not(feature = "testing"))]
mod roles;
#[cfg(feature = "testing")]
pub mod roles;
#[cfg(not(feature = "testing"))]
mod saga;
#[cfg(feature = "testing")]
pub mod saga;
#[cfg(not(feature = "testing"))]
mod schema_registry;
#[cfg(feature = "testing")]
pub mod schema_registry;
#[cfg(not(feature = "testing"))]
mod serve;
#[cfg(feature = "testing")]
pub mod serve;
#[cfg(not(feature = "testing"))]
mod telemetry;
#[cfg(feature = "testing")]
pub mod telemetry;
#[cfg(not(feature = "testing"))]
mod wire;
#[cfg(feature = "testing")]
pub mod wire;

pub use cli::run;
