//! Making entries durable: the dead letters and outcomes before the segment's end acknowledged, then the segment appended
//! to the chain; then the owner commits the offset. In this order: the next owner goes on at the chain's end, so nothing
//! that came before it may still be unsent. A row that is not above what the chain has of its saga is never appended. The
//! first two wait for their dependency as long as it takes; a commit that fails is tried again later, beside other work.

use crate::cold::chain::{Appended, ChainWriter};
use crate::cold::segment::NewSegment;
use crate::error::{Error, Result};
use crate::history::History;
use crate::kafka::intake::Intake;
use crate::retry::{Backoff, until_available};
use crate::saga::position::EntrySequence;

use super::outbound::UnacknowledgedSends;
use super::ownership::Ownership;
use super::partition_chain::OffsetCommit;

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
