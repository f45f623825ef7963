//! How far materialize is: what hot's marks and cold's chains vouch for, at one moment.

use std::collections::HashMap;

use super::reader::History;
use crate::error::Result;
use crate::hot::{Mark, marks_of_all_buckets};
use crate::saga::position::{ChainId, Offset, SagaId};

/// Marks of every bucket, read together. Empty where hot does not answer: then cold alone counts.
pub struct MaterializeProgress {
    marks: Vec<HashMap<ChainId, Mark>>,
}

impl MaterializeProgress {
    /// What every bucket's mark vouches for at least; 0: of nothing.
    pub(super) fn least(&self, chain: &ChainId) -> Offset {
        let of = |marks: &HashMap<ChainId, Mark>| marks.get(chain).map_or(Offset(0), |mark| mark.to);
        self.marks.iter().map(of).min().unwrap_or_default()
    }
}

impl History {
    pub async fn progress(&self) -> Result<MaterializeProgress> {
        let marks = marks_of_all_buckets(&*self.hot).await?;
        for (bucket, marks) in (0..).zip(&marks) {
            self.high_water_marks.note(bucket, marks.iter().map(|(chain, mark)| (chain, *mark)));
        }
        Ok(MaterializeProgress { marks })
    }

    /// The first offset of the chain that is not in cold, asked now.
    pub async fn durable_to(&self, chain: &ChainId) -> Result<Offset> {
        Ok(self.cold.follow(chain).await?.next.unwrap_or(Offset(0)))
    }

    /// Has the chain's partition a later incarnation?
    pub fn is_past(&self, chain: &ChainId) -> bool {
        let later = |other: &ChainId| {
            other.topic == chain.topic && other.partition == chain.partition && other.incarnation > chain.incarnation
        };
        self.chains.all().iter().any(later)
    }

    /// Is every entry of the saga in `chain` below `end` in history?
    pub async fn reaches(&self, progress: &MaterializeProgress, saga: &SagaId, chain: &ChainId, end: Offset) -> Result<bool> {
        let mark = progress.marks.get(usize::from(self.hot.bucket(saga))).and_then(|marks| marks.get(chain));
        if mark.is_some_and(|mark| mark.to >= end) {
            return Ok(true);
        }
        let durable = |known: Option<crate::cold::reader::ChainEnd>| known.and_then(|known| known.next) >= Some(end);
        if end == Offset(0) || durable(self.cold.known_end(chain)) {
            return Ok(true);
        }
        // Where hot has a mark the chain is behind it but for moments; asking S3 each time would only cost.
        if mark.is_some() {
            return Ok(false);
        }
        Ok(durable(Some(self.cold.follow(chain).await?)))
    }
}
