//! Which sagas a batch is about, in order, each once: those that it names, or those that a search finds.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::history::History;
use crate::roles::replay::replay_records::ReplayRecords;
use crate::saga::batch::{BatchRow, BatchSource};
use crate::saga::json::Json;
use crate::saga::position::SagaId;
use crate::saga::selector::SagaFilter;
use crate::saga::time::Micros;

/// Sagas of one page of a search, of some 500 bytes each. The first slice of the next page judges some of the same once more, so that pages
/// are few.
const PAGE: usize = 20_000;
/// How long a search waits to see what was recorded before its batch; tried again after that.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct SagaSelection {
    pub history: History,
    pub records: ReplayRecords,
}

/// Pages of rows, until one is empty.
pub struct Rows<'a> {
    selection: &'a SagaSelection,
    overrides: Vec<(SagaId, Json)>,
    next: Next<'a>,
}

enum Next<'a> {
    Named(std::vec::IntoIter<SagaId>, HashSet<SagaId>),
    Found { filter: &'a SagaFilter, after: Option<String>, is_first: bool },
    End,
}

impl SagaSelection {
    /// `recorded_before`: a search sees all that was. `overrides`: by saga id.
    pub async fn rows<'a>(
        &'a self,
        source: &'a BatchSource,
        overrides: Option<&[(SagaId, Json)]>,
        recorded_before: Micros,
    ) -> Result<Rows<'a>> {
        let next = match source {
            BatchSource::Sagas(sagas) => Next::Named(sagas.clone().into_iter(), HashSet::new()),
            BatchSource::Selector(filter) => {
                self.catch_up(filter, recorded_before).await?;
                Next::Found { filter, after: None, is_first: true }
            }
            BatchSource::Frozen { .. } => return Err(Error::bug("select the sagas of a list that is frozen")),
        };
        // Sorted, to be found; of several for one saga the last counts.
        let mut overrides: Vec<(SagaId, Json)> = overrides.unwrap_or_default().to_vec();
        overrides.reverse();
        overrides.sort_by(|(one, _), (other, _)| one.cmp(other));
        overrides.dedup_by(|(one, _), (other, _)| one == other);
        Ok(Rows { selection: self, overrides, next })
    }

    async fn catch_up(&self, filter: &SagaFilter, recorded_before: Micros) -> Result<()> {
        let deadline = Instant::now() + CAUGHT_UP_WITHIN;
        // The page itself is not looked at: how far it reaches is.
        let probe = SagaFilter { saga_id: Some(SagaId::from("")), ..filter.clone() };
        while self.page(&probe, None, 1).await?.complete_through < recorded_before {
            if Instant::now() >= deadline {
                return Err(Error::refused("behind", "the sagas' partitions are not caught up yet"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn page(&self, filter: &SagaFilter, after: Option<&str>, limit: usize) -> Result<crate::history::answer::SearchResult> {
        self.history.search(filter, after, limit, self).await
    }
}

impl Rows<'_> {
    /// The next ones, at most `limit` (a page of a search may be more); empty at the end.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<BatchRow>> {
        let sagas = match &mut self.next {
            Next::Named(left, seen) => {
                let mut sagas = Vec::new();
                while sagas.len() < limit
                    && let Some(saga) = left.next()
                {
                    if seen.insert(saga.clone()) {
                        sagas.push(saga);
                    }
                }
                sagas
            }
            Next::Found { .. } => self.search().await?,
            Next::End => Vec::new(),
        };
        Ok(sagas.into_iter().map(|saga| self.row(saga)).collect())
    }

    /// A page may be empty where the next is not.
    async fn search(&mut self) -> Result<Vec<SagaId>> {
        while let Next::Found { filter, after, is_first } = &mut self.next {
            if after.is_none() && !std::mem::take(is_first) {
                self.next = Next::End;
                break;
            }
            let page = self.selection.page(filter, after.as_deref(), PAGE).await?;
            *after = page.next;
            if !page.sagas.is_empty() {
                return Ok(page.sagas.into_iter().map(|found| found.saga_id).collect());
            }
        }
        Ok(Vec::new())
    }

    fn row(&self, saga_id: SagaId) -> BatchRow {
        let at = self.overrides.binary_search_by(|(id, _)| id.cmp(&saga_id));
        BatchRow { own_override: at.ok().map(|at| self.overrides[at].1.clone()), ..BatchRow::of(saga_id) }
    }
}
