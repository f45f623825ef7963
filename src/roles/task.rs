//! What the process runs of a role, and what it tells the process.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::Result;

/// Told when partitions were assigned for the first time.
pub type Assigned = Arc<dyn Fn(bool) + Send + Sync>;

/// A part of a role that runs by itself. The supervisor of the process runs it, again after a pause where it lost its
/// dependencies, until the shutdown.
#[async_trait]
pub trait RoleTask: Send + Sync {
    /// As the log names it.
    fn name(&self) -> &'static str;

    /// The condition of `/readyz` that holds from its first assignment on.
    fn readiness(&self) -> &'static str {
        self.name()
    }

    /// Runs until the shutdown. `Unavailable`: it lost a dependency, and is to be run again; any other error ends the process.
    async fn run(&self, assigned: Assigned, shutdown: watch::Receiver<bool>) -> Result<()>;
}
