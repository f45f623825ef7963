//! Whole histories, of one saga or of many at once.

use futures::stream::{self, StreamExt};

use super::answer::FullHistory;
use super::folds::current;
use super::loaded::{FIRST_READ, LoadedEntries};
use super::membership::{is_of, of_home};
use super::merge::{self, CandidateMarks, ReadDepth};
use super::reader::History;
use super::state::saga_not_found;
use crate::error::Result;
use crate::hot::{HotQuery, HotRead};
use crate::saga::position::SagaId;
use crate::saga::time::Micros;
use crate::wire::frame::decode_member;

/// Sagas that are read one by one at the same time.
const AT_ONCE: usize = 16;

impl History {
    /// A saga's whole history. Refused: `saga_not_found`; `too_large` over the limit of entries.
    pub async fn entries(&self, saga: &SagaId) -> Result<FullHistory> {
        self.whole(self.load(saga, Micros::MAX, ReadDepth::Start).await?)
    }

    /// The same of many, in their order. Hot is read in one round trip; a saga that it does not have whole, or in few
    /// entries, is then read alone.
    pub async fn entries_of(&self, sagas: &[SagaId]) -> Vec<Result<FullHistory>> {
        let query = |saga: &SagaId| HotQuery::new(saga.clone(), Micros::MAX, FIRST_READ);
        let queries: Vec<HotQuery> = sagas.iter().map(query).collect();
        // What cannot be read of many is read, or told, of each.
        let reads = self.hot.read(&queries).await.unwrap_or_default();
        let reads = reads.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let each = sagas.iter().zip(reads).map(|(saga, read)| async move {
            match &read {
                Some(read) if let Ok(Some(loaded)) = self.whole_in_hot(saga, read).await => self.whole(loaded),
                _ => self.entries(saga).await,
            }
        });
        stream::iter(each.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await
    }

    fn whole(&self, loaded: LoadedEntries) -> Result<FullHistory> {
        if loaded.entries.is_empty() {
            return Err(loaded.not_found_unless_incomplete(saga_not_found()));
        }
        self.check_count(loaded.entries.len())?;
        let entries = loaded.entries.into_iter().map(|stored| stored.entry).collect();
        Ok(FullHistory { entries, source: loaded.source, reach: loaded.reach, split: loaded.split })
    }

    /// `None`: this read does not have all of it, or not where the saga is expected to live.
    async fn whole_in_hot(&self, saga: &SagaId, read: &HotRead) -> Result<Option<LoadedEntries>> {
        let homes = self.chains.homes_of(saga);
        let [home] = &homes[..] else { return self.load_from_hot(saga, read, &homes).await };
        let marks = CandidateMarks { candidates: home, marks: &read.marks };
        self.note_marks(saga, &marks);
        if of_home(&read.members, home).is_some() {
            return Ok(None);
        }
        let run = merge::hot_run(
            &current(&read.members, self.fold),
            ReadDepth::Start,
            &marks,
            |_| true,
            |bytes| decode_member(saga, bytes),
        );
        let loaded = self.hot_alone(saga, &marks, run).await?.ok();
        // Of another topic, its partition has the same number.
        Ok(loaded.filter(|loaded| loaded.entries.last().is_some_and(|newest| is_of(&newest.entry.position, home))))
    }
}
