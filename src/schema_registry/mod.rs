//! The schema registry (Confluent's REST API, which Apicurio, Karapace and Redpanda speak too): schemas by id or guid,
//! and registration of our own.
//!
//! Tries once with a time-out. Knows HTTP; must not know what a schema means (`wire::avro`).

mod client;
pub mod lookups;
mod missing;

pub use client::SchemaRegistry;
