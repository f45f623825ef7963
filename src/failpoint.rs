//! Named points at which a test lets the process die as `kill -9` would. Inert unless [`arm`]ed at start.
//!
//! Knows nothing of what happens at a point; reads no environment (config does).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Armed {
    name: String,
    left: AtomicU32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Lets the process abort when it passes the point `name` for the `nth` time (1: the first). Later calls change nothing.
pub fn arm(name: impl Into<String>, nth: u32) {
    ARMED.get_or_init(|| Armed { name: name.into(), left: AtomicU32::new(nth.max(1)) });
}

/// Passes the point `name`.
pub fn pass(name: &str) {
    if let Some(armed) = ARMED.get()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}
