//! How the producers of step events spread keys over partitions: everything that knows more than the formulas, which are
//! [`crate::saga::partitioner`]'s.
//!
//! - [`observed`]: what a process knows by the settings and the keys that it has seen; its roles share it
//! - [`newest_keys`]: the newest keys of the events topics, read once
//! - [`settings`]: what the settings, or such keys, say
//!
//! What `doctor` tells of it is in `admin`.

pub mod newest_keys;
pub mod observed;
pub mod settings;

pub use newest_keys::{Keys, newest_keys};
pub use observed::{Partitioning, Strays};
pub use settings::{configured, place, used};
