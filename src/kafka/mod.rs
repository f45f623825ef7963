//! Kafka: intake (a consumer thread whose rebalances are messages with a reply), plain and transactional producers,
//! topics, and librdkafka's mock cluster. The only folder that names rdkafka.

mod bootstrap;
pub mod broker_clock;
mod client;
mod client_log;
pub mod ends;
mod failure;
pub mod intake;
mod memory_budget;
pub mod mock;
mod native;
mod observed;
pub mod publisher;
mod reader;
pub mod record;
pub mod sample;
mod statistics;
pub mod tail;
mod topic_plan;
pub mod topics;
pub mod transaction;

pub use failure::{NOT_ASSIGNED, TOPIC_MISSING};
