//! A transaction as its publisher takes it, and why it may not be committed.

use tokio::sync::oneshot;

use crate::kafka::intake::GroupMetadata;
use crate::kafka::record::NewRecord;
use crate::saga::position::{Offset, TopicPartition};

/// What becomes visible at once, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub records: Vec<NewRecord>,
    /// Written once `records` are acknowledged.
    pub last: Vec<NewRecord>,
    /// Next offsets to read. Needs `group`.
    pub offsets: Vec<(TopicPartition, Offset)>,
    /// The membership under which what the offsets pass was read; it fences a member that lost its partitions.
    pub group: Option<GroupMetadata>,
}

/// Why a transaction is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing is visible. Rewind to the committed offsets and try again; the publisher can go on.
    #[error("transaction aborted: {0}")]
    Aborted(String),
    /// A newer producer has this transactional id. Nothing of this transaction becomes visible unless its commit was already
    /// under way: open again and re-read. This publisher is closed.
    #[error("transactional producer fenced: {0}")]
    Fenced(String),
    /// It may be visible or not: open again (which settles it) and re-read. This publisher is closed.
    #[error("outcome of transaction unknown: {0}")]
    Unknown(String),
    /// A record is larger than the producer or the topic takes. Nothing is visible; the publisher can go on, though the next
    /// transaction may be `Aborted` once (librdkafka mends the hole in its sequence by an abort).
    #[error("record too large for its topic")]
    TooLarge,
    /// Nothing was begun: the publisher is closed or its queue is full.
    #[error("transactional producer unavailable: {0}")]
    Unavailable(String),
}

impl PublishError {
    /// Whether the publisher is closed and must be opened again.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Fenced(_) | Self::Unknown(_) | Self::Unavailable(_))
    }
}

pub(super) type Published = Result<(), PublishError>;
pub(super) type TransactionCommand = (Transaction, oneshot::Sender<Published>);
