//! Wiring: config -> adapters -> roles; the only file that sees everything.

mod check;
mod conflicts;
mod demo;
mod gap;
mod log_counts;
mod log_owner;
mod log_restore;
mod log_view;
mod partitioner;
mod replays;
mod schemas;
mod serve;
mod stores;
#[cfg(test)]
mod testing;
mod topics;
mod watch;

use serde::Serialize;

pub use check::doctor;
pub use demo::{DemoOptions, demo};
pub use gap::{accept_gap, hand_over};
pub use log_owner::take_over_log;
pub use serve::serve;
pub use topics::{topics_apply, topics_plan};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Bridge,
    Materialize,
    Replay,
    Compact,
    Api,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Bridge, Self::Materialize, Self::Replay, Self::Compact, Self::Api];
    pub const DEFAULT: [Self; 4] = [Self::Materialize, Self::Replay, Self::Compact, Self::Api];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Materialize => "materialize",
            Self::Replay => "replay",
            Self::Compact => "compact",
            Self::Api => "api",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A topic of the configuration, as `topic plan` and `topic apply` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicRow {
    pub topic: String,
    /// What is or was to do: `none`, `create`, `created`, `alter`, `altered`, or `differs` (left alone).
    pub action: String,
    pub partitions: Option<i32>,
    pub replication: Option<i32>,
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// One thing that `doctor` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub check: String,
    pub verdict: Verdict,
    pub detail: String,
    pub remedy: Option<String>,
    /// A problem's exit code, where it is not 1: 2 configuration, 7 unreachable.
    #[serde(skip)]
    pub exit: Option<u8>,
}
