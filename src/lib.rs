//! resaga keeps every saga's history and replays failed sagas exactly once.
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
//! - [`wire`]: pure: bytes <-> domain
//! - [`config`]: all settings with units and defaults
//! - [`telemetry`]: tracing, and one struct with every metric
//! - [`saga`]: pure: ids, event, fold, timeline, replay plan
//! - for all: [`error`], [`retry`] (the one place for trying again), [`cpu`] (long work on threads of its own), [`failpoint`],
//!   [`nearest`] (the name that was meant by an unknown one)

// Unit tests use the stores of tests/it that fail on a schedule.
#[cfg(test)]
extern crate self as resaga;

pub mod admin;
pub mod api;
pub mod cli;
pub mod cold;
pub mod config;
pub mod cpu;
pub mod demo;
pub mod error;
pub mod failpoint;
pub mod history;
pub mod hot;
pub mod kafka;
pub mod nearest;
pub mod partitioning;
pub mod replay_log;
pub mod retry;
pub mod roles;
pub mod saga;
pub mod schema_registry;
pub mod serve;
pub mod telemetry;
pub mod wire;
