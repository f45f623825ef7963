//! What a process does: one folder a role. Async; names no vendor crate.
//!
//! A new role is a folder with a `task.rs` that makes its [`RoleTask`]s from the [`Components`], a line here, and a line in
//! `serve/roles.rs`.

mod components;
pub mod materialize;
pub mod replay;
pub mod suspension;
mod task;

use tokio::sync::watch;

use crate::kafka::intake::Intake;

pub use components::{Components, fold_settings};
pub use task::{Assigned, RoleTask};

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
