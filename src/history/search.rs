//! Search: sagas by failure, status, name and time window, newest first.
//!
//! Goes back in slices of time ([`super::slices`]) and judges each candidate by its whole history. A saga has one place
//! in the order, so it is found in exactly one slice.

use std::collections::{BTreeSet, HashSet};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::History;
use super::answer::FoundSagas;
use super::cursor::SearchPlace;
use super::merge::{self, Back};
use super::slices::ColdRows;
use crate::error::{Error, Result};
use crate::saga::position::SagaId;
use crate::saga::selector::{Failure, FoundSaga, ReplayStanding, SagaFilter};
use crate::saga::time::Micros;

/// Tells how the newest replay of a saga stands; asked only if the filter does.
pub type StandingOf<'a> = dyn Fn(SagaId) -> BoxFuture<'a, Result<ReplayStanding>> + Send + Sync + 'a;

/// Candidates judged at the same time.
const AT_ONCE: usize = 16;
/// Candidates judged for one page; then the page ends early, with a cursor.
const MAX_CANDIDATES: usize = 10_000;

impl History {
    /// Sagas that the filter finds, after the cursor, at most `limit`.
    pub async fn search(
        &self,
        filter: &SagaFilter,
        after: Option<&str>,
        limit: usize,
        standing: &StandingOf<'_>,
    ) -> Result<FoundSagas> {
        let after = after.map(SearchPlace::read).transpose()?;
        let mut page = Pager { after, limit, sagas: Vec::new(), complete_through: Micros::MAX };
        if let Some(saga) = &filter.saga_id {
            self.judge(filter, BTreeSet::from([saga.clone()]), (Micros::MIN, Micros::MAX), standing, &mut page).await?;
            return Ok(page.finish(None));
        }
        let since = filter.since.unwrap_or(Micros::MIN);
        let mut until = filter.until.unwrap_or(Micros::MAX);
        if let Some(place) = &page.after {
            until = until.min(place.at.saturating_add(1));
        }
        let mut rows = ColdRows::default();
        // Those with a place in a slice that was looked at; they are candidates of many.
        let mut placed: HashSet<SagaId> = HashSet::new();
        let mut judged = 0;
        while since < until && page.sagas.len() <= limit {
            if judged >= MAX_CANDIDATES {
                return Ok(page.finish(Some(SearchPlace { at: until, saga: None })));
            }
            let mut slice = self.slice(filter, since, until, &mut rows).await?;
            page.complete_through = page.complete_through.min(slice.complete_through);
            slice.candidates.retain(|saga| !placed.contains(saga));
            judged += slice.candidates.len();
            let found = self.judge(filter, slice.candidates, (slice.since, until), standing, &mut page).await?;
            placed.extend(found);
            until = slice.since;
        }
        if page.complete_through == Micros::MAX {
            // An empty window: nothing was looked at yet.
            page.complete_through = self.slice(filter, Micros::MIN, Micros::MIN, &mut rows).await?.complete_through;
        }
        Ok(page.finish(None))
    }

    /// Judges candidates by their histories and puts those with their place in the slice on the page, in order. Gives
    /// those with their place there or after it.
    async fn judge(
        &self,
        filter: &SagaFilter,
        candidates: BTreeSet<SagaId>,
        (since, until): (Micros, Micros),
        standing: &StandingOf<'_>,
        page: &mut Pager,
    ) -> Result<Vec<SagaId>> {
        let judging = candidates.into_iter().map(|saga| self.judge_one(filter, saga, standing));
        let judged: Vec<(Option<FoundSaga>, Micros)> = stream::iter(judging).buffer_unordered(AT_ONCE).try_collect().await?;
        let (mut found, mut placed) = (Vec::new(), Vec::new());
        for (saga, complete_through) in judged {
            page.complete_through = page.complete_through.min(complete_through);
            let Some(saga) = saga.filter(|saga| since <= saga.at) else { continue };
            placed.push(saga.saga_id.clone());
            found.extend((saga.at < until || until == Micros::MAX).then_some(saga));
        }
        found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.saga_id.cmp(&b.saga_id)));
        found.retain(|saga| page.after.as_ref().is_none_or(|after| after.is_before(saga.at, &saga.saga_id)));
        page.sagas.extend(found);
        Ok(placed)
    }

    async fn judge_one(
        &self,
        filter: &SagaFilter,
        saga: SagaId,
        standing: &StandingOf<'_>,
    ) -> Result<(Option<FoundSaga>, Micros)> {
        let loaded = match self.load(&saga, Micros::MAX, Back::Start).await {
            // One saga must not fail the search: of a history that long the state is judged, and no single failure.
            Err(Error::Refused { code: "too_large", .. }) => self.load(&saga, Micros::MAX, Back::Snapshot).await?,
            other => other?,
        };
        // A candidate may be newer than what its marks vouch for, or of another reader's topic.
        let through = loaded.reach.complete_through;
        let Some(folded) = merge::fold(&loaded.entries, |_| true)? else { return Ok((None, through)) };
        let failures: Vec<Failure> = loaded.entries.iter().filter_map(|stored| Failure::of(&stored.entry)).collect();
        let fits = filter.fits_state(&folded.state);
        let standing = if fits && filter.replay.is_some() { standing(saga).await? } else { ReplayStanding::None };
        let found = filter.find(&folded.state, &failures, || standing);
        Ok((found, through))
    }
}

struct Pager {
    after: Option<SearchPlace>,
    limit: usize,
    sagas: Vec<FoundSaga>,
    complete_through: Micros,
}

impl Pager {
    /// `early`: where the search stopped before it had a page.
    fn finish(mut self, early: Option<SearchPlace>) -> FoundSagas {
        let more = self.sagas.len() > self.limit;
        self.sagas.truncate(self.limit);
        let last = self.sagas.last().filter(|_| more);
        let place = last.map(|last| SearchPlace { at: last.at, saga: Some(last.saga_id.clone()) }).or(early);
        FoundSagas { sagas: self.sagas, next: place.map(|place| place.write()), complete_through: self.complete_through }
    }
}
