//! Histories of the next batch, loaded while a batch is committed. They hold for the ends that were known then; a saga
//! that must be looked at to other ends is loaded anew.

use std::collections::HashMap;

use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::desk::{Desk, Known};
use super::fresh::{EndsThen, Freshness};
use crate::error::Result;
use crate::saga::position::SagaId;

/// Histories read in one round trip: as many answers are in memory at once, before they are unpacked.
const READ_TOGETHER: usize = 32;
/// Such reads at the same time.
const READS: usize = 2;

#[derive(Default)]
pub struct Ahead {
    histories: HashMap<SagaId, Known>,
    ends: Option<EndsThen>,
}

impl Ahead {
    /// Loads what is materialized to these ends by now; of what is not, or cannot be read, it has nothing.
    pub async fn look(desk: &Desk, freshness: &Freshness, ends: EndsThen, sagas: Vec<SagaId>) -> Self {
        let Ok(fresh) = freshness.wait(&sagas, &ends, Instant::now()).await else { return Self::default() };
        let sagas = sagas.into_iter().zip(fresh).filter(|(_, fresh)| *fresh).map(|(saga, _)| saga).collect();
        let loaded = load(desk, sagas).await;
        let histories = loaded.into_iter().filter_map(|(saga, known)| Some((saga, known.ok()?))).collect();
        Self { histories, ends: Some(ends) }
    }

    /// The history of a saga, if it was looked at to these very ends.
    pub fn take(&mut self, saga: &SagaId, ends: &EndsThen) -> Option<Known> {
        self.ends.as_ref().filter(|own| own.is_same(ends))?;
        self.histories.remove(saga)
    }
}

/// What history has of these sagas.
pub async fn load(desk: &Desk, sagas: Vec<SagaId>) -> Vec<(SagaId, Result<Known>)> {
    let chunks: Vec<Vec<SagaId>> = sagas.chunks(READ_TOGETHER).map(<[SagaId]>::to_vec).collect();
    let reads = stream::iter(chunks).map(|sagas| async move {
        let known = desk.load(&sagas).await;
        sagas.into_iter().zip(known).collect::<Vec<_>>()
    });
    let read: Vec<_> = reads.buffer_unordered(READS).collect().await;
    read.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_holds_for_the_ends_it_was_looked_at_to_and_once() {
        let (then, later) = (EndsThen::asked_at(Instant::now()), EndsThen::asked_at(Instant::now()));
        let saga = SagaId::from("order-1");
        let mut ahead = Ahead { histories: [(saga.clone(), Known::Nothing)].into(), ends: Some(then.clone()) };
        assert!(ahead.take(&saga, &later).is_none());
        assert!(ahead.take(&SagaId::from("order-2"), &then).is_none());
        assert!(matches!(ahead.take(&saga, &then), Some(Known::Nothing)));
        assert!(ahead.take(&saga, &then).is_none());
    }
}
