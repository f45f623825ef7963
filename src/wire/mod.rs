//! Pure: bytes <-> domain values. JSON, Avro, the frames that the stores keep, headers.
//!
//! Knows the shapes of docs/interface/ and nothing of where bytes come from or go to: no I/O, no clock, no
//! randomness. What cannot be read is an error that names the field and never quotes a value.

pub mod avro;
pub mod batch;
pub mod dead_letter;
pub mod event;
mod fields;
pub mod frame;
pub mod headers;
pub mod json;
pub mod log;
pub mod payload;
pub mod request;
pub mod restored;
pub mod schedule;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
