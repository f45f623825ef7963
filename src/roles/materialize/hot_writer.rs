//! Writes to the hot store, one after the other: entries first, then marks by compare-and-set, and only over entries
//! that are proved to be still there; else these are written again whole (docs/ARCHITECTURE.md, Guarantees).
//!
//! Runs beside the fold: the next batch is folded while the one before is being written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::Result;
use crate::hot::{DurableSaga, HotBatch, HotStore, Mark, MarkMove, MarkOutcome, Tokens, Written};
use crate::retry::until_available;
use crate::saga::position::{EntrySequence, Offset, SagaId};
use crate::saga::time::Micros;

use super::ownership::{Generation, Ownership};

/// The move of one mark, and what its owner vouches for itself: the mark may hold more, of an owner before.
#[derive(Debug, Clone)]
pub struct MarkRequest {
    pub mark: MarkMove,
    /// Of the ownership of the partition.
    pub generation: Generation,
    /// Everything below was written by this owner, from where it began.
    pub position: Offset,
    /// How far that is complete, if known.
    pub complete_through: Option<Micros>,
}

/// One write: what was folded, how far each partition's mark may move after it, and keys that may expire from then on.
#[derive(Default)]
pub struct HotWork {
    pub batch: HotBatch,
    /// Sagas with entries that are durable, the newest of them: after the entries.
    pub settle: HashMap<SagaId, EntrySequence>,
    /// After the entries.
    pub marks: Vec<MarkRequest>,
    /// Sagas with entries that never happened. Last: while a mark vouches for them a saga must not lack them.
    pub forget: HashSet<SagaId>,
    /// Partitions that are folded again from what is durable when all this is done.
    pub restarts: Vec<Ownership>,
}

impl HotWork {
    pub fn is_empty(&self) -> bool {
        self.restarts.is_empty()
            && self.settle.is_empty()
            && self.forget.is_empty()
            && self.batch.is_empty()
            && self.marks.is_empty()
    }

    /// Members to be written.
    pub fn len(&self) -> usize {
        self.batch.sagas.iter().map(|write| write.members.len()).sum()
    }

    /// Bytes of these.
    pub fn bytes(&self) -> usize {
        self.batch.sagas.iter().flat_map(|write| &write.members).map(|member| member.bytes.len()).sum()
    }

    /// This work, then `next`.
    pub fn append(&mut self, next: Self) {
        // What is written now did happen.
        for write in &next.batch.sagas {
            self.forget.remove(&write.saga);
        }
        self.batch.sagas.extend(next.batch.sagas);
        self.batch.failures.extend(next.batch.failures);
        self.batch.activity.extend(next.batch.activity);
        self.batch.holds.extend(next.batch.holds);
        self.marks.extend(next.marks);
        self.forget.extend(next.forget);
        self.restarts.extend(next.restarts);
        self.settle(next.settle.into_iter().map(|(saga, sequence)| DurableSaga { saga, sequence }));
    }

    pub fn settle(&mut self, sagas: impl IntoIterator<Item = DurableSaga>) {
        for DurableSaga { saga, sequence } in sagas {
            let newest = self.settle.entry(saga).or_insert(sequence);
            *newest = sequence.max(*newest);
        }
    }
}

/// What became of one mark.
pub struct MarkResult {
    pub wanted: MarkRequest,
    /// `Some`: another value or none was there, so writes were lost or another owner wrote.
    pub found: Option<Option<Mark>>,
}

/// What became of one write.
#[derive(Default)]
pub struct HotWriteResult {
    pub marks: Vec<MarkResult>,
    /// How often a mark could not move because what was written before it was lost, and was written again.
    pub rewritten: u64,
    pub restarts: Vec<Ownership>,
    /// What was to be forgotten and was not.
    pub unforgotten: HashSet<SagaId>,
}

/// Does the work, waiting for the store as long as it takes.
pub async fn write(hot: Arc<dyn HotStore>, tokens: Arc<Tokens>, work: HotWork) -> Result<HotWriteResult> {
    let HotWork { mut batch, settle, mut forget, marks, restarts } = work;
    let mut settle: Vec<DurableSaga> = settle.into_iter().map(|(saga, sequence)| DurableSaga { saga, sequence }).collect();
    let (mut done, mut wanted) = (HotWriteResult { restarts, ..HotWriteResult::default() }, marks);
    loop {
        let mut written = match batch.is_empty() {
            true => Written { token: tokens.next(), ..Written::default() },
            false => until_available("write hot entries", || hot.write(&batch, tokens.next())).await?,
        };
        crate::failpoint::pass("materialize.after_hot");
        if !settle.is_empty() {
            written = until_available("let durable hot entries expire", || hot.settle(&settle, &written)).await?;
        }
        wanted = move_marks(&*hot, wanted, &written, &mut done.marks).await?;
        if wanted.is_empty() {
            break;
        }
        // A fail-over between the entries and their mark keeps the one and loses the other.
        done.rewritten += wanted.len() as u64;
        let buckets: HashSet<u16> = wanted.iter().map(|wanted| wanted.mark.bucket).collect();
        tracing::info!(marks = wanted.len(), "hot store lost what was written before its marks moved, writing it again");
        batch.retain(|saga| hot.bucket(saga), |bucket| buckets.contains(&bucket));
        settle.retain(|durable| buckets.contains(&hot.bucket(&durable.saga)));
    }
    // Where somebody else moved a mark the entries may be theirs.
    let moved = |by_us: bool| -> HashSet<u16> {
        done.marks.iter().filter(|moved| moved.found.is_none() == by_us).map(|moved| moved.wanted.mark.bucket).collect()
    };
    let (ours, others) = (moved(true), moved(false));
    forget.retain(|saga| ours.contains(&hot.bucket(saga)) && !others.contains(&hot.bucket(saga)));
    if !forget.is_empty() {
        // Once: a later try could meet what the next owner wrote. Who owns the partition still tries again behind its marks.
        let sagas: Vec<SagaId> = forget.iter().cloned().collect();
        if let Err(reason) = hot.forget(&sagas).await {
            tracing::warn!(%reason, sagas = sagas.len(), "what never happened is not forgotten by the hot store yet");
            done.unforgotten = forget;
        }
    }
    Ok(done)
}

/// Moves marks over what was written; gives those back before which it was lost.
async fn move_marks(
    hot: &dyn HotStore,
    wanted: Vec<MarkRequest>,
    written: &Written,
    results: &mut Vec<MarkResult>,
) -> Result<Vec<MarkRequest>> {
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let marks: Vec<MarkMove> = wanted.iter().map(|wanted| wanted.mark.clone()).collect();
    let outcomes = until_available("move hot marks", || hot.move_marks(&marks, written)).await?;
    let mut unproved = Vec::new();
    for (wanted, outcome) in wanted.into_iter().zip(outcomes) {
        let found = match outcome {
            MarkOutcome::Moved => None,
            // The answer to an earlier try was lost: it did move.
            MarkOutcome::Found(Some(mark)) if mark == wanted.mark.new => None,
            MarkOutcome::Found(other) => Some(other),
            MarkOutcome::Unproved => {
                unproved.push(wanted);
                continue;
            }
        };
        results.push(MarkResult { wanted, found });
    }
    Ok(unproved)
}

/// How a mark that was not what it was left at is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRepair {
    /// What this owner has from here on is written again.
    pub write_from: Offset,
    /// The new mark.
    pub from: Offset,
    pub to: Offset,
}

/// What the owner of a partition can write again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndurableRange {
    /// The chain's next start.
    pub from: Offset,
    /// Up to where this owner wrote itself: a mark must not vouch for what only an owner before it wrote and the store then lost.
    pub to: Offset,
}

/// What to do when `found` was there instead.
pub fn repair(found: Option<Mark>, undurable: UndurableRange) -> MarkRepair {
    let UndurableRange { from, to } = undurable;
    match found {
        // What it vouches for reaches the chain's end or beyond: only what is above is missing.
        Some(mark) if mark.to >= from => MarkRepair { write_from: mark.to, from: mark.from, to: mark.to.max(to) },
        // It stops below what cold has: everything undurable, and the mark begins at the chain's end.
        _ => MarkRepair { write_from: from, from, to: from.max(to) },
    }
}

#[cfg(test)]
#[path = "hot_writer_tests.rs"]
mod tests;
