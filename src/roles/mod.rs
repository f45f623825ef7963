//! What a process does. Async; names no vendor crate.

pub mod log_saga;
pub mod materialize;
pub mod partition_alarms;
pub mod partitioning;
pub mod replay;
pub mod replay_log;
pub mod retry;
pub mod schema;
pub mod suspension;

use tokio::sync::watch;

use crate::kafka::intake::Intake;

/// Ends when the process is to stop. Holds nothing while it waits.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone stops too.
    let _ = shutdown.wait_for(|stop| *stop).await.map(drop);
}

/// Asks an intake to stop: it takes the partitions away, and then closes its channel. Waits for nothing.
pub fn stop_intake(intake: &Intake) {
    let intake = intake.clone();
    tokio::spawn(async move {
        if let Err(reason) = intake.stop().await {
            tracing::warn!(%reason, "intake did not stop cleanly");
        }
    });
}
