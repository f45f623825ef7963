//! The hot store in Redis, one server or a cluster. Layout: docs/data-formats.md; key names: `keys`.
//!
//! Writes are pipelines without scripts, each with the token at its end; only marks are compared and set by one. Members are read in one MULTI with
//! the marks, so no wipe can fall between the two. Knows no retry: one try, `Unavailable`, the next call reconnects.

mod client;
mod error;
mod health;
mod index;
mod keys;
mod link;
mod owner;
mod pack;
mod scripts;
mod settle;
mod store;
mod url;
mod values;

pub use client::RedisHot;
