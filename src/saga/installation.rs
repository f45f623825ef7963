//! Whose stores these are: one consumer group of one Kafka cluster is one installation. Two that meant to be apart must
//! never write into one archive or one Redis prefix: their histories would mix without a word.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Code: a store belongs to another installation.
pub const OF_ANOTHER: &str = "store_of_another";

/// One installation of resaga.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Installation {
    /// Kafka's own; empty where the brokers tell none.
    pub cluster_id: String,
    /// `[kafka] group_id`: what all of its processes share.
    pub group_id: String,
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = if self.cluster_id.is_empty() { "without an id" } else { &self.cluster_id };
        write!(f, "Kafka cluster {cluster}, group_id {}", self.group_id)
    }
}
