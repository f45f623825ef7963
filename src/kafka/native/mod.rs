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
mod waking;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;

pub(super) use admin::{End, add_brokers, list_offsets, topic_ids};
pub(super) use events::{ConsumerEvent, Event, EventConsumer, set_leader_epoch};
pub(super) use waking::Waking;

/// Frees a pointer of librdkafka's when dropped.
struct OwnedPointer<T> {
    ptr: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> OwnedPointer<T> {
    /// `ptr` must be owned by the caller and be freed by `free`.
    fn new(ptr: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(ptr).map(|ptr| Self { ptr, free })
    }
    fn ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for OwnedPointer<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null, owned by this guard alone, and `free` is its destructor (1).
        unsafe { (self.free)(self.ptr.as_ptr()) }
    }
}

// SAFETY: librdkafka's queues and events may be used from any thread (5).
unsafe impl<T> Send for OwnedPointer<T> {}

const NO_ERROR: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// # Safety
/// Null, or a C string that is alive.
unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: as the caller promises.
    if pointer.is_null() { String::new() } else { unsafe { CStr::from_ptr(pointer).to_string_lossy().into_owned() } }
}

/// # Safety
/// Null, or `size` bytes that are alive and unchanged for `'a`.
unsafe fn slice<'a>(pointer: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), size) })
}
