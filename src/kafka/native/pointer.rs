//! Guards for what librdkafka hands over, and its small values: errors, times, texts, ranges of bytes. The numbers in
//! brackets are those of the safety argument in `mod.rs`.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;

/// Frees a pointer of librdkafka's when dropped.
pub(super) struct OwnedPointer<T> {
    pub(super) ptr: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> OwnedPointer<T> {
    /// `ptr` must be owned by the caller and be freed by `free`.
    pub(super) fn new(ptr: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(ptr).map(|ptr| Self { ptr, free })
    }
    pub(super) fn ptr(&self) -> *mut T {
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

pub(super) const NO_ERROR: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

pub(super) fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// # Safety
/// Null, or a C string that is alive.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: as the caller promises.
    if pointer.is_null() { String::new() } else { unsafe { CStr::from_ptr(pointer).to_string_lossy().into_owned() } }
}

/// # Safety
/// Null, or `size` bytes that are alive and unchanged for `'a`.
pub(super) unsafe fn slice<'a>(pointer: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), size) })
}
