//! The calls of librdkafka that rdkafka does not wrap. The one folder of the crate with `unsafe`.
//!
//! Why it is needed: rdkafka's poll tells of a partition's end without topic and offset, has no ListOffsets with an
//! isolation level of its own (its watermarks are last stable offsets on a `read_committed` client), no topic ids and no
//! leader epochs; it wraps each record in an `Arc`; and waiting for a queue is left to polls of a few milliseconds.
//!
//! Why it is sound: (1) every pointer that librdkafka hands over is owned by one guard below, which frees it once with the
//! function that librdkafka documents for it; pointers into an event are read only while its guard lives, and lifetimes tie
//! what is borrowed to the guard; (2) queues are freed before their client, as [`EventConsumer`] declares them first; (3) a
//! null is checked wherever librdkafka may return one; (4) strings and byte ranges are copied or borrowed with the length
//! that librdkafka gives; (5) librdkafka's functions used here are documented as thread safe, and the consumer is used by
//! one thread anyway; (6) what librdkafka's threads call back is taken away from them before what it points at is freed.

#![expect(unsafe_code, reason = "rdkafka does not wrap what the intake needs; the safety argument is above")]

mod admin;
mod events;
mod pointer;
mod waking;

pub(super) use admin::{End, add_brokers, list_offsets, topic_ids};
pub(super) use events::{ConsumerEvent, EventConsumer, QueueEvent, set_leader_epoch};
pub(super) use waking::WakingQueue;
