//! The only clock of the process: everything below is told the time.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::saga::time::Micros;

pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
