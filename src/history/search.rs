//! Search: sagas by failure, status, name and time window, newest first.
//!
//! Goes back in slices of time ([`super::slices`]) and judges each candidate by its newest state and, where that fits, the
//! failures of its history. A saga has one place in the order, so it is found in exactly one slice.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::answer::SearchResult;
use super::cursor::SearchCursor;
use super::loaded::{LONG, LoadedEntries};
use super::merge::{self, ReadDepth};
use super::reader::History;
use super::replay_lookup::ReplayLookup;
use super::slices::{ColdRows, Slice};
use crate::cpu;
use crate::error::{Error, Result};
use crate::saga::event::Kind;
use crate::saga::failure::SagaFailure;
use crate::saga::position::{EntrySequence, SagaId};
use crate::saga::selector::{FoundSaga, ReplayStanding, SagaFilter};
use crate::saga::state::State;
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;

/// Candidates judged at the same time.
const AT_ONCE: usize = 16;
/// Candidates judged before the time is looked at.
const TOGETHER: usize = if cfg!(test) { 2 } else { 64 };
/// Candidates judged for one page; then the page ends early, with a cursor.
const MAX_CANDIDATES: usize = 10_000;
/// After this time too.
const MAX_TIME: Duration = Duration::from_secs(5);

impl History {
    /// Sagas that the filter finds, after the cursor, at most `limit`.
    pub async fn search(
        &self,
        filter: &SagaFilter,
        after: Option<&str>,
        limit: usize,
        replays: &dyn ReplayLookup,
    ) -> Result<SearchResult> {
        self.search_within(MAX_TIME, filter, after, limit, replays).await
    }

    pub(super) async fn search_within(
        &self,
        time: Duration,
        filter: &SagaFilter,
        after: Option<&str>,
        limit: usize,
        replays: &dyn ReplayLookup,
    ) -> Result<SearchResult> {
        let after = after.map(SearchCursor::read).transpose()?;
        let deadline = Instant::now() + time;
        let mut page = Pager { after, limit, sagas: Vec::new(), complete_through: Micros::MAX };
        if let Some(saga) = &filter.saga_id {
            let (found, through) = self.judge_one(filter, saga.clone(), replays).await?;
            page.complete_through = through;
            page.add(found.into_iter().collect());
            return Ok(page.finish(None));
        }
        let since = filter.since.unwrap_or(Micros::MIN);
        let mut until = filter.until.unwrap_or(Micros::MAX);
        if let Some(place) = &page.after {
            // Behind a saga others of its time may follow; where the time was up, all from `at` on was looked at: one instant more
            // would give the same cursor again.
            until = until.min(if place.saga.is_some() { place.at.saturating_add(1) } else { place.at });
        }
        let mut rows = ColdRows::default();
        // Those with a place in a slice that was looked at; they are candidates of many.
        let mut placed: HashSet<SagaId> = HashSet::new();
        let mut judged = 0;
        while since < until && page.sagas.len() <= limit {
            if judged >= MAX_CANDIDATES || judged > 0 && Instant::now() >= deadline {
                return Ok(page.finish(Some(SearchCursor { at: until, saga: None })));
            }
            let mut slice = self.slice(filter, since, until, &mut rows).await?;
            page.complete_through = page.complete_through.min(slice.complete_through);
            slice.candidates.retain(|saga, _| !placed.contains(saga));
            judged += slice.candidates.len();
            let begin = slice.since;
            let judging = CandidateFilter { filter, replays, deadline };
            until = self.judge(judging, slice, until, &mut page, &mut placed).await?;
            if until > begin {
                return Ok(page.finish(Some(SearchCursor { at: until, saga: None })));
            }
        }
        if page.complete_through == Micros::MAX {
            // An empty window: nothing was looked at yet.
            page.complete_through = self.slice(filter, Micros::MIN, Micros::MIN, &mut rows).await?.complete_through;
        }
        Ok(page.finish(None))
    }

    /// Judges the candidates of a slice, those that may be newest first, and puts those with their place in it on the page, in
    /// order. Gives where the slice begins: later than it did if the time is up. Those with their place in it are `placed`.
    async fn judge(
        &self,
        CandidateFilter { filter, replays, deadline }: CandidateFilter<'_>,
        slice: Slice,
        until: Micros,
        page: &mut Pager,
        placed: &mut HashSet<SagaId>,
    ) -> Result<Micros> {
        let mut since = slice.since;
        let mut candidates: Vec<(SagaId, Micros)> = slice.candidates.into_iter().collect();
        candidates.sort_by_key(|(_, latest)| std::cmp::Reverse(*latest));
        let mut rest = &candidates[..];
        let mut found: Vec<FoundSaga> = Vec::new();
        while let Some((_, next)) = rest.first() {
            // What is left has its place at `next` or before: the slice may begin behind that.
            let cut = next.saturating_add(1);
            if Instant::now() >= deadline && cut < until && rest.len() < candidates.len() {
                since = since.max(cut);
                break;
            }
            let (now, later) = rest.split_at(rest.len().min(TOGETHER));
            let judging = now.iter().map(|(saga, _)| self.judge_one(filter, saga.clone(), replays));
            let judged: Vec<(Option<FoundSaga>, Micros)> =
                stream::iter(judging.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await?;
            for (saga, complete_through) in judged {
                page.complete_through = page.complete_through.min(complete_through);
                found.extend(saga);
            }
            rest = later;
        }
        found.retain(|saga| since <= saga.at);
        placed.extend(found.iter().map(|saga| saga.saga_id.clone()));
        found.retain(|saga| saga.at < until || until == Micros::MAX);
        page.add(found);
        Ok(since)
    }

    async fn judge_one(
        &self,
        filter: &SagaFilter,
        saga: SagaId,
        replays: &dyn ReplayLookup,
    ) -> Result<(Option<FoundSaga>, Micros)> {
        // Most are turned away by their newest state, and of most that is all there is.
        let mut loaded = self.load(&saga, Micros::MAX, ReadDepth::Snapshot).await?;
        let Some(mut state) = newest_state(&loaded).await? else { return Ok((None, loaded.reach.complete_through)) };
        let in_window = filter.asks_for_failure() || filter.in_window(state.entry.effective_time);
        let may_be_stuck = |state: &State, through| !filter.stuck || self.stuck.is_stuck(state, through);
        if !filter.fits_state(&state) || !in_window || !may_be_stuck(&state, loaded.reach.complete_through) {
            return Ok((None, loaded.reach.complete_through));
        }
        let has_all = loaded.entries.first().is_some_and(|first| first.entry.sequence == EntrySequence::FIRST);
        let is_failed_step = |stored: &StoredEntry| stored.entry.event.kind == Kind::StepFailed;
        let newest_failure_is_known = !filter.asks_for_failure() && loaded.entries.iter().any(is_failed_step);
        if !has_all && !newest_failure_is_known {
            match self.load(&saga, Micros::MAX, ReadDepth::Start).await {
                Ok(whole) => {
                    // It may have gone on meanwhile.
                    state = newest_state(&whole).await?.unwrap_or(state);
                    loaded = whole;
                }
                // One saga must not fail the search: of a history that long the state is judged, and no single failure.
                Err(Error::Refused { code: "too_large", .. }) => {}
                Err(other) => return Err(other),
            }
        }
        let failures: Vec<SagaFailure> = loaded.entries.iter().filter_map(|stored| SagaFailure::of(&stored.entry)).collect();
        let fits = filter.fits_state(&state) && may_be_stuck(&state, loaded.reach.complete_through);
        let standing = if fits && filter.replay.is_some() { replays.standing(&saga).await? } else { ReplayStanding::None };
        let mut found = filter.find(&state, &failures, || standing).filter(|_| fits);
        if let Some(wanted) = filter.repaired
            && found.is_some()
            && replays.is_repaired(&saga).await? != wanted
        {
            found = None;
        }
        // A candidate may be newer than what its marks vouch for, or of another reader's topic.
        Ok((found, loaded.reach.complete_through))
    }
}

async fn newest_state(loaded: &LoadedEntries) -> Result<Option<State>> {
    let fold = || merge::fold(&loaded.entries, |_| true);
    let saga = if loaded.entries.len() > LONG { cpu::long(fold).await? } else { fold()? };
    Ok(saga.map(|saga| saga.state))
}

/// What candidates are judged by, and until when.
#[derive(Clone, Copy)]
struct CandidateFilter<'a> {
    filter: &'a SagaFilter,
    replays: &'a dyn ReplayLookup,
    deadline: Instant,
}

struct Pager {
    after: Option<SearchCursor>,
    limit: usize,
    sagas: Vec<FoundSaga>,
    complete_through: Micros,
}

impl Pager {
    /// Those after the cursor, in order.
    fn add(&mut self, mut found: Vec<FoundSaga>) {
        found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.saga_id.cmp(&b.saga_id)));
        found.retain(|saga| self.after.as_ref().is_none_or(|after| after.is_before(saga.at, &saga.saga_id)));
        self.sagas.extend(found);
    }

    /// `early`: where the search stopped before it had a page.
    fn finish(mut self, early: Option<SearchCursor>) -> SearchResult {
        let more = self.sagas.len() > self.limit;
        self.sagas.truncate(self.limit);
        let last = self.sagas.last().filter(|_| more);
        let place = last.map(|last| SearchCursor { at: last.at, saga: Some(last.saga_id.clone()) }).or(early);
        SearchResult { sagas: self.sagas, next: place.map(|place| place.write()), complete_through: self.complete_through }
    }
}
