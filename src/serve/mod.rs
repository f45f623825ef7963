//! The process: what it is made of, what runs in it, and how it ends. The only room that joins all adapters and roles.

mod clock;
mod dependencies;
mod process;
mod replay_service;
mod role;
mod schemas;
mod stores;
#[cfg(test)]
pub(crate) mod testing;
mod topics;

pub use clock::now;
pub use process::{Process, drain, ended_role, serve, signal};
pub use role::Role;
pub use schemas::schemas_of;
pub use stores::{Stores, installation, look, open};
pub use topics::partition_counts;
