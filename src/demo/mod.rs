//! The demo's story: a shop, a payment outage, and its repair.
//!
//! Two outsiders play it: a small orchestrator that runs order sagas (a producer and consumer of its own) and an operator
//! who looks and replays over HTTP. Both know resaga by its topics and routes only (docs/INTERFACE.md), nothing of its inside;
//! Kafka clients are borrowed from `kafka`. What is printed as verified was compared with what the orchestrator recorded.

mod afterwards;
mod book;
mod clock;
mod engine;
mod environment;
mod gateways;
mod operator;
mod orchestrator;
mod orders;
mod repair;
mod restored;
mod run;
mod story;
mod summary;
mod verify;

pub use environment::DemoOptions;
pub use run::demo;
