//! What work beside the loop of the role gave.

use tokio::task::JoinError;

use crate::error::{Error, Result};

/// A task that panicked is a bug of ours.
pub fn joined<T>(done: std::result::Result<T, JoinError>) -> Result<T> {
    done.map_err(|e| Error::bug(format!("a task of materialize ended: {e}")))
}
