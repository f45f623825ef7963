//! Schemas that values were written with, and the registry that has them. HTTP, not Kafka.

pub mod lookups;
