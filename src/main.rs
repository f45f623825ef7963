//! Arguments in, exit code out.

use std::process::ExitCode;

/// Many small values that live for a flush interval and are freed by another thread: measured against glibc's allocator,
/// see docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    resaga::run(std::env::args_os().collect())
}
