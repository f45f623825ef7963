//! The process: what it is made of, what runs in it, and how it ends. The only room that joins all adapters and roles.
//!
//! - [`stores`]: opens hot and cold store and looks whose they are; [`schemas`], [`topics`]: the same of registry and topics
//! - [`components`]: the wiring of what the roles share
//! - [`roles`]: the roles there are; [`supervisor`] runs their tasks, again where they lost a dependency, and stops them
//! - [`process`]: roles and what runs besides them: [`dependencies`] for `/readyz`, reading and restoring the replay log
//! - [`http`]: the server; [`replay_service`] and [`batch_service`] are what its routes of replays and batches ask
//!
//! Decides nothing about sagas or replays.

mod batch_service;
mod clock;
mod components;
mod dependencies;
mod http;
mod process;
mod replay_service;
mod roles;
mod schedule_service;
mod schemas;
mod stores;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
mod topics;

use std::process::ExitCode;

use crate::config::Config;

pub use clock::now;
pub use process::Process;
#[cfg(test)]
pub use roles::planned_names;
pub use roles::{ROLES, Role, role_names};
pub use schemas::schemas_of;
pub use stores::{Stores, installation, open, open_read_only};
pub use supervisor::signal;
pub use topics::{partition_counts, partitions_of};

/// Runs the roles until a signal says to stop.
pub async fn serve(config: Config, roles: Vec<&Role>) -> anyhow::Result<ExitCode> {
    let counts = partition_counts(&config).await?;
    let stores = open(&config, &counts).await?;
    let shutdown_timeout = config.serve.shutdown_timeout;
    let (process, mut supervisor) = Process::start(config, stores, &counts, &roles).await?;
    let (listener, shutdown) = (process.listen().await?, supervisor.shutdown());
    if roles.iter().any(|role| role.name == roles::API) {
        supervisor.spawn(process.all_routes(listener, shutdown));
    } else {
        supervisor.spawn(process.health_only(listener, shutdown));
    }
    let names: Vec<&str> = roles.iter().map(|role| role.name).collect();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), roles = ?names, "resaga started");
    let outcome = tokio::select! {
        ended = supervisor.ended() => ended,
        () = signal() => Ok(()),
    };
    tokio::select! {
        stopped = tokio::time::timeout(shutdown_timeout, supervisor.stop()) => match stopped {
            Ok(stopped) => outcome.and(stopped)?,
            Err(_) => anyhow::bail!(
                "not drained within serve.shutdown_timeout ({shutdown_timeout:?}): what was not committed is read again at the next start"
            ),
        },
        () = signal() => {
            tracing::warn!("second signal: leaving at once");
            return Ok(ExitCode::FAILURE);
        }
    }
    tracing::info!("resaga stopped");
    Ok(ExitCode::SUCCESS)
}
