//! The sagas that have not ended yet, of one's own partitions: a walk through all that moved lately, for whoever follows them from
//! there on.
//!
//! Goes back in the slices of a search, and takes its time: it stands beside the work of a process, which comes first.

use std::time::Instant;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::answer::PointInTime;
use super::reader::History;
use super::slices::ColdRows;
use crate::error::{Error, Result};
use crate::saga::position::{SagaId, TopicPartition};
use crate::saga::selector::SagaFilter;
use crate::saga::state::State;
use crate::saga::stuck::StuckLimits;
use crate::saga::time::Micros;

/// Sagas judged at the same time.
const AT_ONCE: usize = 8;
/// Sagas judged before a pause.
const TOGETHER: usize = 64;
/// A pause is this many times as long as what was judged before it took.
const PAUSE_SHARE: u32 = 3;

/// A saga that runs or compensates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSaga {
    pub saga_id: SagaId,
    pub saga_name: String,
    /// Of its newest entry.
    pub effective_time: Micros,
    pub recorded_time: Micros,
    pub partition: TopicPartition,
}

impl History {
    pub fn stuck_limits(&self) -> &StuckLimits {
        &self.stuck
    }

    /// Those with their newest entry (effective time) not before `since` and in one of these partitions, at most `limit`. One that
    /// moves meanwhile may be left out, or be as it was before.
    pub async fn open_sagas(&self, partitions: &[TopicPartition], since: Micros, limit: usize) -> Result<Vec<OpenSaga>> {
        let filter = SagaFilter { since: Some(since), ..SagaFilter::default() };
        let mut rows = ColdRows::default();
        let mut until = Micros::MAX;
        let mut open = Vec::new();
        while since < until && open.len() < limit {
            let slice = self.slice(&filter, since, until, &mut rows).await?;
            let candidates = slice.candidates.into_keys().filter(|saga| self.may_be_in(saga, partitions));
            let candidates: Vec<SagaId> = candidates.collect();
            for some in candidates.chunks(TOGETHER) {
                let began = Instant::now();
                let judging: Vec<_> = some.iter().map(|saga| self.newest_of(saga)).collect();
                let states: Vec<Option<State>> = stream::iter(judging).buffer_unordered(AT_ONCE).try_collect().await?;
                // Each has one place, so it is in one slice.
                let placed = |state: &State| slice.since <= state.entry.effective_time && state.entry.effective_time < until;
                open.extend(states.into_iter().flatten().filter(placed).filter_map(|state| open_saga(state, partitions)));
                tokio::time::sleep(began.elapsed() * PAUSE_SHARE).await;
            }
            until = slice.since;
        }
        open.truncate(limit);
        Ok(open)
    }

    fn may_be_in(&self, saga: &SagaId, partitions: &[TopicPartition]) -> bool {
        let homes = self.chains.homes_of(saga);
        let is_own =
            |of: &TopicPartition| homes.iter().flatten().any(|home| home.topic == of.topic && home.partition == of.partition);
        partitions.iter().any(is_own)
    }

    /// One saga that cannot be read must not hide the others.
    async fn newest_of(&self, saga: &SagaId) -> Result<Option<State>> {
        match self.state(saga, PointInTime::Newest).await {
            Ok(found) => Ok(Some(found.state)),
            Err(Error::Refused { .. } | Error::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn open_saga(state: State, partitions: &[TopicPartition]) -> Option<OpenSaga> {
    let position = &state.entry.position;
    let is_there = |of: &&TopicPartition| of.topic == position.topic && of.partition == position.partition;
    let partition = partitions.iter().find(is_there).filter(|_| !state.status.is_end())?.clone();
    Some(OpenSaga {
        effective_time: state.entry.effective_time,
        recorded_time: state.entry.recorded_time,
        saga_id: state.saga_id,
        saga_name: state.saga_name,
        partition,
    })
}
