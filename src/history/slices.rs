//! The slices of a search: from the newest part of a window back, with every saga that may have its place in each.
//!
//! Candidates come from hot's indexes and, where its marks do not vouch or its indexes were dropped, from cold's rows.
//! Knows what may fit; whether it does is judged elsewhere ([`super::search`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::loaded::known;
use super::merge::{self, ChainCoverage};
use super::reader::History;
use crate::cold::reader::SegmentRef;
use crate::cold::segment::RowSummary;
use crate::error::{Error, Result};
use crate::hot::{ActivityFact, FailureFact, IndexQuery, IndexRead, Mark};
use crate::saga::event::Kind;
use crate::saga::position::{ChainId, Offset, SagaId};
use crate::saga::selector::SagaFilter;
use crate::saga::time::Micros;

/// Facts read from hot for one slice, to begin with.
const FACTS: usize = 1_000;
/// Most facts of one time (of one minute: activity) that can be read.
const MAX_FACTS: usize = 1_000_000;
/// Cold segments scanned for one slice, besides those that reach past it (more, where they end at one time).
const SEGMENTS: usize = 16;
/// Segments scanned at the same time.
const SCANS_AT_ONCE: usize = 8;

const MINUTE: i64 = 60_000_000;

impl History {
    /// What hot's indexes can be believed for by these marks, and how far the answer reaches.
    async fn cover(&self, marks: &[(u16, ChainId, Mark)], all_cold: bool) -> Result<(Vec<(ChainId, Offset)>, Micros)> {
        let chains = self.chains.all();
        let covers = chains.iter().map(|chain| self.cover_chain(chain, marks, all_cold));
        let covers = try_join_all(covers).await?;
        let is_newest = |chain: &ChainId| !chains.iter().any(|other| is_later(other, chain));
        let newest = chains.iter().zip(&covers).filter(|(chain, _)| is_newest(chain));
        let through = newest.map(|(_, (_, known))| known.complete_through).min().unwrap_or(Micros::MIN);
        let cold_below = covers.iter().map(|(from, _)| if all_cold { Offset(i64::MAX) } else { *from });
        Ok((chains.iter().cloned().zip(cold_below).collect(), through))
    }

    /// Below which offset cold must be asked, and how far hot and cold reach together.
    async fn cover_chain(
        &self,
        chain: &ChainId,
        marks: &[(u16, ChainId, Mark)],
        all_cold: bool,
    ) -> Result<(Offset, ChainCoverage)> {
        let of_chain: Vec<Mark> = marks.iter().filter(|(_, of, _)| of == chain).map(|(_, _, mark)| *mark).collect();
        let all_marked = of_chain.len() >= usize::from(self.hot.buckets());
        let from = of_chain.iter().map(|mark| mark.from).max().filter(|_| all_marked).unwrap_or(Offset(i64::MAX));
        let cold_end = self.cold.known_end(chain).map(known);
        let enough = cold_end.is_some_and(|end| end.to >= from) || from.0 <= 0;
        let cold_end = match cold_end {
            Some(end) if enough && !all_cold => end,
            None if enough && !all_cold => ChainCoverage { to: Offset(0), complete_through: Micros::MIN },
            _ => known(self.cold.follow(chain).await?),
        };
        let mut reach = None;
        for mark in of_chain.iter().filter(|_| all_marked) {
            let bucket = merge::reach(Some(*mark), Some(cold_end), false, (self.now)()).unwrap_or(cold_end);
            let least = |least: ChainCoverage| if least.complete_through <= bucket.complete_through { least } else { bucket };
            reach = Some(reach.map_or(bucket, least));
        }
        let cold_alone = || merge::reach(None, Some(cold_end), false, (self.now)()).unwrap_or(cold_end);
        Ok((from, reach.unwrap_or_else(cold_alone)))
    }

    /// The newest part of the window that can be looked at as a whole, with every saga that may have its place in it.
    pub(super) async fn slice(&self, filter: &SagaFilter, since: Micros, until: Micros, rows: &mut ColdRows) -> Result<Slice> {
        let hot = self.hot_candidates(filter, since, until).await?;
        // One rule for the whole slice: it ends where hot's indexes begin. What is older and not yet durable was written
        // to them after the drop, so they are asked there too.
        let all_cold = hot.kept_from >= until;
        let begin = if all_cold { since.max(hot.since) } else { since.max(hot.kept_from).max(hot.since) };
        let (cold_below, complete_through) = self.cover(&hot.marks, all_cold).await?;
        let mut slice = Slice { since: begin, candidates: BTreeMap::new(), complete_through };

        let mut segments: Vec<SegmentRef> = Vec::new();
        for (chain, below) in cold_below.iter().filter(|(_, below)| below.0 > 0) {
            let overlapping = self.cold.overlapping(chain, begin, until).await?;
            segments.extend(overlapping.into_iter().filter(|segment| segment.start < *below && !rows.scanned(segment)));
        }
        segments.sort_by_key(|segment| std::cmp::Reverse(newest_row(segment)));
        // Those that reach past the slice must be scanned whatever its length; of the others [`SEGMENTS`] at once.
        let reach_past = segments.partition_point(|segment| newest_row(segment) >= until);
        if let Some(next) = segments.get(reach_past + SEGMENTS) {
            // Just above what the next segment may hold; at least one instant.
            let cut = newest_row(next).saturating_add(1).min(until.saturating_add(-1));
            slice.since = slice.since.max(cut);
        }
        segments.retain(|segment| newest_row(segment) >= slice.since);
        // As far back as the search may go: no segment is scanned twice.
        let scans = segments.into_iter().map(|segment| async move {
            let found = self.cold.scan(&segment, since, until).await;
            found.map(|found| (segment, found))
        });
        let mut scans = stream::iter(scans).buffer_unordered(SCANS_AT_ONCE);
        while let Some((segment, found)) = scans.try_next().await? {
            rows.add(&segment, found.into_iter().filter(|row| may_fit(filter, row)), !filter.asks_for_failure());
        }
        drop(scans);
        let inside = hot.found.into_iter().filter(|(_, latest)| *latest >= slice.since);
        for (saga, latest) in rows.take(slice.since, until).chain(inside) {
            let known = slice.candidates.entry(saga).or_insert(latest);
            *known = latest.max(*known);
        }
        Ok(slice)
    }

    /// What hot's index has, newest first, as far as one read goes.
    async fn hot_candidates(&self, filter: &SagaFilter, since: Micros, until: Micros) -> Result<HotCandidates> {
        if !self.indexed {
            return Ok(HotCandidates::none());
        }
        let step = match filter.asks_for_compensation() {
            true => &filter.compensation_failed_step,
            false => &filter.failed_step,
        };
        let query = IndexQuery {
            since,
            until,
            saga_name: filter.saga_name.clone(),
            step: step.clone(),
            compensation: filter.asks_for_compensation(),
        };
        let mut limit = FACTS;
        loop {
            let read = match filter.asks_for_failure() {
                true => self.hot.failures(&query, limit).await.map(|read| HotCandidates::of_failures(read, filter, since)),
                false => self.hot.activity(&query, limit).await.map(|read| HotCandidates::of_activity(read, since)),
            };
            match read {
                // The read is all of one time: no cut keeps anything.
                Ok(read) if read.since >= until && since < until && limit < MAX_FACTS => limit *= 8,
                Ok(read) if read.since >= until && since < until => {
                    return Err(Error::refused("too_large", "too many sagas at one time to search"));
                }
                Ok(read) => return Ok(read),
                // Cold alone gives a right answer, only slower and less new.
                Err(error) if error.is_unavailable() => return Ok(HotCandidates::none()),
                Err(error) => return Err(error.context("read hot index")),
            }
        }
    }
}

pub(super) struct Slice {
    pub since: Micros,
    /// Each with the latest time that it may have its place at.
    pub candidates: BTreeMap<SagaId, Micros>,
    pub complete_through: Micros,
}

/// What one search has read of cold: each segment once, however many slices it reaches through.
#[derive(Default)]
pub(super) struct ColdRows {
    scanned: HashSet<(ChainId, u64)>,
    /// Of rows that fit, those that no slice has taken yet.
    rows: BTreeSet<(Micros, SagaId)>,
}

impl ColdRows {
    fn scanned(&self, segment: &SegmentRef) -> bool {
        self.scanned.contains(&(segment.chain.clone(), segment.ordinal))
    }

    /// `newest`: only the last row of each saga counts; they are in the order of the saga's entries.
    fn add(&mut self, segment: &SegmentRef, rows: impl Iterator<Item = RowSummary>, newest: bool) {
        self.scanned.insert((segment.chain.clone(), segment.ordinal));
        if newest {
            let last: HashMap<SagaId, Micros> = rows.map(|row| (row.saga_id, row.effective_time)).collect();
            self.rows.extend(last.into_iter().map(|(saga, at)| (at, saga)));
        } else {
            self.rows.extend(rows.map(|row| (row.effective_time, row.saga_id)));
        }
    }

    /// Sagas with a row in since <= t < until; their rows there are gone then.
    fn take(&mut self, since: Micros, until: Micros) -> impl Iterator<Item = (SagaId, Micros)> + use<> {
        // The empty id comes before all others.
        let mut inside = self.rows.split_off(&(since, SagaId::from("")));
        let mut after = inside.split_off(&(until, SagaId::from("")));
        self.rows.append(&mut after);
        inside.into_iter().map(|(at, saga)| (saga, at))
    }
}

struct HotCandidates {
    /// Each with the latest time that it may have its place at.
    found: Vec<(SagaId, Micros)>,
    /// From here on the read has all facts of the window.
    since: Micros,
    marks: Vec<(u16, ChainId, Mark)>,
    kept_from: Micros,
}

impl HotCandidates {
    fn none() -> Self {
        Self { found: Vec::new(), since: Micros::MIN, marks: Vec::new(), kept_from: Micros::MAX }
    }

    fn of_failures(read: IndexRead<FailureFact>, filter: &SagaFilter, since: Micros) -> Self {
        let last = read.facts.last().filter(|_| read.more);
        Self {
            since: last.map_or(since, |fact| fact.at.saturating_add(1)),
            found: read.facts.into_iter().filter(|fact| fact_fits(filter, fact)).map(|fact| (fact.saga, fact.at)).collect(),
            marks: read.marks,
            kept_from: read.kept_from,
        }
    }

    fn of_activity(read: IndexRead<ActivityFact>, since: Micros) -> Self {
        let end = |fact: &ActivityFact| Micros(fact.minute.saturating_add(1).saturating_mul(MINUTE));
        let last = read.facts.last().filter(|_| read.more);
        Self {
            since: last.map_or(since, end),
            found: read.facts.into_iter().map(|fact| (fact.saga.clone(), end(&fact))).collect(),
            marks: read.marks,
            kept_from: read.kept_from,
        }
    }
}

fn newest_row(segment: &SegmentRef) -> Micros {
    segment.effective.map_or(Micros::MIN, |(_, newest)| newest)
}

/// Is `other` a later incarnation of the chain's partition?
fn is_later(other: &ChainId, chain: &ChainId) -> bool {
    other.topic == chain.topic && other.partition == chain.partition && other.incarnation > chain.incarnation
}

fn fact_fits(filter: &SagaFilter, fact: &FailureFact) -> bool {
    // Without a name it may be of any step: the saga's history tells.
    let asked = if fact.compensation { &filter.compensation_failed_step } else { &filter.failed_step };
    let step = if fact.saga_name.is_empty() { asked.as_deref() } else { Some(fact.step.as_str()) };
    let step = step.filter(|step| !step.is_empty());
    filter.fits_failure(fact.compensation, step, fact.error_code.as_deref(), fact.error_type.as_deref(), fact.at)
}

/// Leaves out rows that cannot put a saga in the slice. Not by name: a row has its event's, and a saga keeps its first.
fn may_fit(filter: &SagaFilter, row: &RowSummary) -> bool {
    if !filter.asks_for_failure() {
        return true;
    }
    let (step, code, kind) = (row.step.as_deref(), row.error_code.as_deref(), row.error_type.as_deref());
    row.kind.is_failure() && filter.fits_failure(row.kind == Kind::CompensationFailed, step, code, kind, row.effective_time)
}
