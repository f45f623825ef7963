//! What one evaluation may take: time, bytes copied, and the size and depth of any value. Of the thread that evaluates.
//!
//! The interpreter asks nobody whether it may go on, but it cannot go on without copying or comparing values: they count here,
//! and whatever is used up unwinds to [`within`]. So no `try` of the expression catches it, and no loop goes on behind it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Levels of any value on the way. A state has some more than the context that it holds.
const MAX_DEPTH: usize = 256;
/// Bytes that may be copied altogether; bounds what is in memory, too.
const MAX_COPIED: usize = 256 << 20;
/// Units between two looks at the clock: some 0.1 ms.
const UNITS_PER_LOOK: usize = 4_096;
/// Bytes that cost as much as one step.
const BYTES_PER_UNIT: usize = 64;

/// What an evaluation was stopped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Time,
    TooLarge,
    TooDeep,
    TooMuchCopied,
    /// A bug of the interpreter.
    Panic,
}

thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    static UNITS: Cell<usize> = const { Cell::new(UNITS_PER_LOOK) };
    static COPIED: Cell<usize> = const { Cell::new(usize::MAX) };
    static MAX_BYTES: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Does the work, which may use so much time, and make values of so many bytes.
pub fn within<T>(time: Duration, max_bytes: usize, work: impl FnOnce() -> T) -> Result<T, Stop> {
    DEADLINE.set(Some(Instant::now() + time));
    UNITS.set(UNITS_PER_LOOK);
    COPIED.set(MAX_COPIED);
    MAX_BYTES.set(max_bytes);
    let done = catch_unwind(AssertUnwindSafe(work));
    DEADLINE.set(None);
    COPIED.set(usize::MAX);
    MAX_BYTES.set(usize::MAX);
    done.map_err(|panic| panic.downcast_ref::<Stop>().copied().unwrap_or(Stop::Panic))
}

/// One step of the interpreter.
#[inline]
pub fn step() {
    spend(1);
}

/// As many steps as reading so many bytes takes.
pub fn read(bytes: usize) {
    spend(1 + bytes / BYTES_PER_UNIT);
}

/// Bytes are written, or copied.
pub fn copy(bytes: usize) {
    read(bytes);
    match COPIED.get().checked_sub(bytes) {
        Some(rest) => COPIED.set(rest),
        None => stop(Stop::TooMuchCopied),
    }
}

/// A value of so many bytes and levels is made.
pub fn fits(bytes: usize, depth: usize) {
    if bytes > MAX_BYTES.get() {
        stop(Stop::TooLarge);
    }
    if depth > MAX_DEPTH {
        stop(Stop::TooDeep);
    }
}

#[inline]
fn spend(units: usize) {
    match UNITS.get().checked_sub(units) {
        Some(rest) => UNITS.set(rest),
        None => look(),
    }
}

#[cold]
fn look() {
    UNITS.set(UNITS_PER_LOOK);
    if DEADLINE.get().is_some_and(|deadline| Instant::now() >= deadline) {
        stop(Stop::Time);
    }
}

/// Not a panic: no hook is called, and nothing is printed. During another unwinding there is nothing to stop.
#[cold]
fn stop(why: Stop) {
    if !std::thread::panicking() {
        resume_unwind(Box::new(why));
    }
}
