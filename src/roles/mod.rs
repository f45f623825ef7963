//! What a process does. Async; names no vendor crate.

pub mod materialize;
pub mod replay;
pub mod suspension;

use tokio::sync::watch;

/// Ends when the process is to stop. Holds nothing while it waits.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone stops too.
    let _ = shutdown.wait_for(|stop| *stop).await.map(drop);
}
