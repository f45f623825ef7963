//! Making entries durable: the dead letters and outcomes before the segment's end acknowledged, then the segment appended
//! to the chain; then the owner commits the offset. In this order: the next owner goes on at the chain's end, so nothing
//! that came before it may still be unsent. A row that is not above what the chain has of its saga is never appended. The
//! first two wait for their dependency as long as it takes; a commit that fails is tried again later, beside other work.

use tokio::task::AbortHandle;

use crate::cold::chain::{Appended, ChainWriter};
use crate::cold::segment::NewSegment;
use crate::error::{Error, Result};
use crate::history::History;
use crate::kafka::intake::Intake;
use crate::retry::{Backoff, until_available};
use crate::saga::position::{EntrySequence, Offset, SagaId, TopicPartition};

use super::outbound::UnacknowledgedSends;
use super::ownership::Ownership;

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
    pub fn flushed(&mut self, writer: ChainWriter) {
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

/// One flush of one partition.
pub struct FlushJob {
    pub ownership: Ownership,
    pub writer: ChainWriter,
    pub segment: NewSegment,
    pub history: History,
    /// What must be acknowledged before the segment is appended.
    pub sends: UnacknowledgedSends,
}

pub struct FlushResult {
    pub ownership: Ownership,
    pub writer: ChainWriter,
    pub stored: Result<AppendResult>,
}

pub enum AppendResult {
    Appended(Appended),
    /// Nothing: the chain has this entry of a saga already, and so its rows were folded from less.
    AlreadyThere(EntrySequence),
}

/// Next offset of a partition, as it is to be committed, with a text for people.
pub type OffsetCommit = (TopicPartition, Offset, String);

pub async fn flush(mut flush: FlushJob) -> FlushResult {
    let sends = std::mem::take(&mut flush.sends);
    let stored = send_and_append(sends, &mut flush).await;
    FlushResult { ownership: flush.ownership, writer: flush.writer, stored }
}

async fn send_and_append(sends: UnacknowledgedSends, flush: &mut FlushJob) -> Result<AppendResult> {
    sends.acknowledged().await?;
    let compare = || flush.history.has_already(flush.writer.view(), &flush.segment.rows);
    if let Some(sequence) = until_available("compare segment with chain", compare).await? {
        return Ok(AppendResult::AlreadyThere(sequence));
    }
    crate::failpoint::pass("materialize.before_put");
    let appended = append(&mut flush.writer, &flush.segment).await?;
    flush.history.learn_chain(flush.writer.view());
    crate::failpoint::pass("materialize.after_put");
    Ok(AppendResult::Appended(appended))
}

/// Tries once. The chain is the truth: the next owner finds its end without the commit, which is for those who watch the group.
pub async fn commit(intake: &Intake, offsets: Vec<OffsetCommit>) -> bool {
    crate::failpoint::pass("materialize.before_commit");
    let partitions = offsets.iter().map(|(partition, offset, _)| format!("{partition}@{offset}")).collect::<Vec<_>>().join(" ");
    let committed = intake.commit(offsets).await;
    if let Err(reason) = &committed {
        tracing::warn!(partitions, %reason, "offsets not committed, trying again");
    }
    crate::failpoint::pass("materialize.after_commit");
    committed.is_ok()
}

async fn append(writer: &mut ChainWriter, segment: &NewSegment) -> Result<Appended> {
    let mut backoff = Backoff::new("append segment to chain");
    loop {
        match writer.append(segment).await {
            Err(Error::Unavailable(reason)) => backoff.pause(&reason).await,
            other => return other,
        }
    }
}
