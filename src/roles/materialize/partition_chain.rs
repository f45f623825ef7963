//! The chain of a partition as its owner has it: who has its writer, whether a flush runs, and whether the group's offset follows.

use tokio::task::AbortHandle;

use crate::cold::chain::ChainWriter;
use crate::saga::position::{Offset, SagaId, TopicPartition};

/// Next offset of a partition, as it is to be committed, with a text for people.
pub type OffsetCommit = (TopicPartition, Offset, String);

/// The chain of a partition as its owner has it.
pub struct PartitionChain {
    /// `None` while a flush has it, and after a conflict.
    writer: Option<ChainWriter>,
    /// Of the flush that runs.
    flush: Option<AbortHandle>,
    /// The group's offset is not where the chain ends, and no flush is about to commit it.
    uncommitted: bool,
    /// What the next segment says of the log.
    pub topic_id: Option<String>,
    pub leader_epoch: Option<i32>,
}

impl PartitionChain {
    /// `committed`: the group's offset.
    pub fn new(writer: ChainWriter, committed: Option<Offset>, topic_id: Option<String>, leader_epoch: Option<i32>) -> Self {
        let uncommitted = writer.newest().is_some() && committed != Some(writer.next());
        Self { writer: Some(writer), flush: None, uncommitted, topic_id, leader_epoch }
    }

    /// May the chain have entries of the saga? While a flush has the writer, yes: it is rare, and only costs a look-up.
    pub fn may_contain(&self, saga: &SagaId) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.may_contain(saga))
    }

    pub fn is_flushing(&self) -> bool {
        self.flush.is_some()
    }

    /// May a flush begin?
    pub fn has_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// For a flush, which gives it back.
    pub fn take_writer(&mut self) -> Option<ChainWriter> {
        self.writer.take()
    }

    pub fn flush_started(&mut self, flush: AbortHandle) {
        self.flush = Some(flush);
    }

    /// The group's offset follows.
    pub fn give_back(&mut self, writer: ChainWriter) {
        (self.writer, self.flush) = (Some(writer), None);
        self.uncommitted = true;
    }

    pub fn abort_flush(&mut self) {
        if let Some(flush) = self.flush.take() {
            flush.abort();
        }
    }

    /// Nothing more is appended under this ownership.
    pub fn close(&mut self) {
        (self.writer, self.flush) = (None, None);
    }

    pub fn committed(&mut self) {
        self.uncommitted = false;
    }

    /// What another owner's segment covers beyond ours is durable too, and its dead letters were acknowledged before it.
    pub fn due_commit(&self, partition: &TopicPartition) -> Option<OffsetCommit> {
        let writer = self.writer.as_ref().filter(|_| self.uncommitted)?;
        let newest = writer.newest().map(|info| format!("segment {}", info.ordinal)).unwrap_or_default();
        Some((partition.clone(), writer.next(), newest))
    }
}
