//! For materialize: sagas as of all durable entries, many at once.

use futures::future::try_join_all;
use futures::stream::{self, StreamExt};

use super::folds::current;
use super::loaded::known;
use super::membership::of_home;
use super::merge::{self, CandidateMarks, ReadDepth, RunEnd};
use super::reader::History;
use crate::cold::reader::{RowSummary, SagaSegment};
use crate::cold::segment::NewRow;
use crate::cold::view::ChainView;
use crate::error::Result;
use crate::hot::{DurableSaga, HotQuery, HotRead};
use crate::saga::entry::Entry;
use crate::saga::fold::{Saga, WINDOW};
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId};
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;
use crate::wire::frame::decode_member;

/// Sagas read from cold at the same time.
const AT_ONCE: usize = 16;

/// A saga as of its newest durable entry.
pub struct NewestSaga {
    pub saga: Saga,
    /// That entry is of an earlier incarnation of the topic: what was recorded between is lost.
    pub of_before: bool,
}

impl History {
    /// Each saga as of all its entries in `chain` below `end` (the chain's next start), and in the chains of the same
    /// topic that it came from; with its whole window. `None`: it has none. Later entries in hot are passed over: a
    /// previous owner wrote them and they are not durable. Hot is read in one round trip; what cold fails to give of one
    /// saga is that one's error, so that a store which fails now and then gives all in a few tries.
    pub async fn newest_sagas(&self, sagas: &[SagaId], chain: &ChainId, end: Offset) -> Result<Vec<Result<Option<NewestSaga>>>> {
        // Some entries may be there twice, with and without their saga.
        let limit = WINDOW + WINDOW / 4;
        let queries: Vec<HotQuery> = sagas.iter().map(|saga| HotQuery::new(saga.clone(), Micros::MAX, limit)).collect();
        let reads = match self.hot.read(&queries).await {
            Ok(reads) => reads,
            Err(error) if error.is_unavailable() => vec![HotRead::default(); sagas.len()],
            Err(error) => return Err(error.context("read hot history")),
        };
        let mut found = Vec::with_capacity(sagas.len());
        let mut missed = Vec::new();
        for (at, (saga, read)) in sagas.iter().zip(reads).enumerate() {
            let from_hot = self.newest_from_hot(saga, chain, end, &read).await?;
            if from_hot.is_none() {
                missed.push((at, saga.clone()));
            }
            // Hot alone is not believed where an earlier incarnation has entries of the saga.
            found.push(Ok(from_hot.map(|saga| NewestSaga { saga, of_before: false })));
        }
        if !missed.is_empty() {
            self.follow_family(&missed, chain, end).await?;
        }
        let reads = missed
            .into_iter()
            .map(|(at, saga): (usize, SagaId)| async move { (at, self.newest_from_cold(&saga, chain, end).await) });
        let mut cold = stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((at, saga)) = cold.next().await {
            found[at] = saga;
        }
        drop(cold);
        Ok(found)
    }

    /// What the owner of a chain knows of it.
    pub fn learn_chain(&self, view: &ChainView) {
        self.cold.learn(view);
    }

    /// Does the chain have an entry of one of these rows' sagas that is not below the saga's first row? Then they were
    /// folded from less than the chain holds. Looks at the newest segments, which are at hand.
    pub async fn has_already(&self, view: &ChainView, rows: &[NewRow]) -> Result<Option<EntrySequence>> {
        // A saga's first row carries its fold.
        let first = rows.iter().filter(|row| row.saga.is_some()).map(|row| &row.entry);
        let mut first: Vec<_> = first.map(|entry| (entry.event.saga_id.hash64(), entry)).collect();
        first.sort_unstable_by_key(|(hash, _)| *hash);
        let sequences: Vec<(u64, u64)> = first.iter().map(|(hash, entry)| (*hash, entry.sequence.0)).collect();
        for (at, segment) in view.not_above(&sequences) {
            // A hash finds; the id decides.
            let (_, entry) = first[at];
            let stored =
                self.cold.load(&SagaSegment { segment, first_effective_time: Micros::MIN }, &entry.event.saga_id).await?;
            if stored.last().is_some_and(|last| last.entry.sequence >= entry.sequence) {
                return Ok(Some(entry.sequence));
            }
        }
        Ok(None)
    }

    /// The sagas of the segment that covers this offset, each with its newest entry there, and the offset after the
    /// segment. `None`: the chain does not reach there.
    pub async fn durable_sagas(&self, chain: &ChainId, offset: Offset) -> Result<Option<(Vec<DurableSaga>, Offset)>> {
        if self.cold.segment_over(chain, offset).is_none() {
            self.cold.follow(chain).await?;
        }
        let Some(segment) = self.cold.segment_over(chain, offset) else { return Ok(None) };
        let mut sagas: Vec<DurableSaga> = Vec::new();
        // By saga and sequence.
        let take = |row: RowSummary| match sagas.last_mut().filter(|last| last.saga == row.saga_id) {
            Some(last) => last.sequence = row.sequence,
            None => sagas.push(DurableSaga { saga: row.saga_id, sequence: row.sequence }),
        };
        self.cold.scan_each(&segment, Micros::MIN, Micros::MAX, take).await?;
        Ok(Some((sagas, segment.end.next())))
    }

    async fn newest_from_hot(&self, saga: &SagaId, chain: &ChainId, end: Offset, read: &HotRead) -> Result<Option<Saga>> {
        // What another partition has of the saga is folded by that one's owner, for itself.
        let family = self.chains.family(saga, chain);
        let marks = CandidateMarks { candidates: &family, marks: &read.marks };
        if marks.of(chain).is_none_or(|mark| mark.to < end) {
            return Ok(None);
        }
        let durable = |entry: &Entry| is_durable(entry, chain, end);
        let own = if self.chains.were_raised() { None } else { of_home(&read.members, &family) };
        let members = current(own.as_ref().unwrap_or(&read.members), self.fold);
        let mut run = merge::hot_run(&members, ReadDepth::Window, &marks, durable, |bytes| decode_member(saga, bytes));
        let Some(newest) = run.entries.first().map(|stored| &stored.entry) else { return Ok(None) };
        let (sequence, newest) = (newest.sequence, newest.position.clone());
        // A mark is believed, but not against what the chain is known to hold.
        let own = newest.topic == chain.topic && newest.partition == chain.partition;
        if own && !self.cold.may_be_newest(chain, saga, newest.offset, sequence) {
            return Ok(None);
        }
        if run.ending != RunEnd::Reached || !self.is_whole(saga, &newest, &marks).await? {
            return Ok(None);
        }
        run.entries.reverse();
        merge::fold_with_window(&run.entries)
    }

    /// Makes sure that cold is known as far as it must be, once for all sagas.
    async fn follow_family(&self, sagas: &[(usize, SagaId)], chain: &ChainId, end: Offset) -> Result<()> {
        let mut chains: Vec<ChainId> = sagas.iter().flat_map(|(_, saga)| self.chains.family(saga, chain)).collect();
        chains.sort();
        chains.dedup();
        // The owner knows its own end; what other owners did must be asked.
        chains.retain(|of| of != chain || self.cold.known_end(of).is_none_or(|known_end| known(known_end).to < end));
        try_join_all(chains.iter().map(|chain| self.cold.follow(chain))).await?;
        Ok(())
    }

    async fn newest_from_cold(&self, saga: &SagaId, chain: &ChainId, end: Offset) -> Result<Option<NewestSaga>> {
        let mut newest: Vec<StoredEntry> = Vec::new();
        let mut of_before = false;
        for of in self.chains.family(saga, chain) {
            let segments = self.cold.segments_of(&of, saga).await?;
            let mut entries = Vec::new();
            for segment in segments.iter().rev().filter(|found| of != *chain || found.segment.start < end) {
                entries = self.cold.load(segment, saga).await?;
                // Else the rows of another saga with the same hash.
                if !entries.is_empty() {
                    break;
                }
            }
            let last = |entries: &[StoredEntry]| entries.last().map(|stored| stored.entry.sequence);
            if last(&entries) > last(&newest) {
                newest = entries;
                of_before = of.incarnation < chain.incarnation;
            }
        }
        Ok(merge::fold_with_window(&newest)?.map(|saga| NewestSaga { saga, of_before }))
    }
}

fn is_durable(entry: &Entry, chain: &ChainId, end: Offset) -> bool {
    let own = entry.position.topic == chain.topic && entry.position.partition == chain.partition;
    !own || entry.position.offset < end
}
