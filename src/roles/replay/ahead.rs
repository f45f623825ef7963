//! Histories of the next batch, loaded while a batch is committed. They hold for the ends that were known then; a saga
//! that must be looked at to other ends is loaded anew.

use std::collections::HashMap;

use tokio::time::Instant;

use super::desk::{Desk, Known};
use super::fresh::{EndsThen, Freshness};
use crate::saga::position::SagaId;

#[derive(Default)]
pub struct Ahead {
    histories: HashMap<SagaId, Known>,
    ends: Option<EndsThen>,
}

impl Ahead {
    /// Loads what is materialized to these ends by now; of what is not, or cannot be read, it has nothing.
    pub async fn look(desk: &Desk, freshness: &Freshness, ends: EndsThen, sagas: Vec<SagaId>) -> Self {
        let Ok(fresh) = freshness.wait(&sagas, &ends, Instant::now()).await else { return Self::default() };
        let sagas: Vec<SagaId> = sagas.into_iter().zip(fresh).filter(|(_, fresh)| *fresh).map(|(saga, _)| saga).collect();
        let loaded = desk.load(&sagas).await;
        let loaded = sagas.into_iter().zip(loaded).filter_map(|(saga, known)| Some((saga, known.ok()?)));
        let histories = loaded.filter(|(saga, known)| freshness.covers(saga, &ends, known)).collect();
        Self { histories, ends: Some(ends) }
    }

    /// The history of a saga, if it was looked at to these very ends.
    pub fn take(&mut self, saga: &SagaId, ends: &EndsThen) -> Option<Known> {
        self.ends.as_ref().filter(|own| own.is_same(ends))?;
        self.histories.remove(saga)
    }
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
