//! A hot store that lies, and rows that were folded from it.

use super::{Told, World, chain, row};
use crate::cold::segment::NewRow;
use crate::hot::{HotBatch, HotQuery, HotStore, Mark, MarkMove, SagaWrite};
use crate::saga::position::{EntrySequence, Offset, SagaId};
use crate::saga::time::Micros;

impl World {
    /// Hot has all but the newest `count` entries of a saga, and the mark over all of partition 0 all the same.
    pub async fn forge(&mut self, saga: &str, count: usize) {
        let saga = SagaId::from(saga);
        let query = HotQuery::new(saga.clone(), Micros::MAX, 1_000);
        // Newest first.
        let mut members = self.hot.read(&[query]).await.expect("memory store").remove(0).members;
        members.drain(..count);
        self.hot.wipe(0).await;
        let batch = HotBatch { sagas: vec![SagaWrite { saga, members, persist: false }], ..HotBatch::default() };
        let written = self.hot.write(&batch, self.tokens.next()).await.expect("memory store");
        let to = Offset(self.ends[0]);
        let new = Mark { from: Offset(0), to, complete_through: self.now, settled: Offset(0) };
        let wanted = MarkMove { chain: chain(0), bucket: 0, expect: None, new };
        self.hot.move_marks(&[wanted], &written).await.expect("memory store");
    }

    /// The sequence of the first of these that partition 0's chain has already.
    pub async fn has_already(&self, told: &[&Told]) -> Option<EntrySequence> {
        let rows: Vec<NewRow> = told.iter().map(|told| row(told)).collect();
        self.history.has_already(self.owners[0].writer.view(), &rows).await.expect("cold answers")
    }
}
