//! How far this process has been told of each chain: whoever answered from an entry must not say later that it was never
//! there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::hot::Mark;
use crate::saga::position::{ChainId, Offset};

/// Of each bucket of hot and each chain the furthest mark seen.
#[derive(Default)]
pub struct HighWaterMarks(Mutex<HashMap<u16, HashMap<ChainId, Offset>>>);

impl HighWaterMarks {
    pub fn see<'m>(&self, bucket: u16, marks: impl Iterator<Item = (&'m ChainId, Mark)>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.entry(bucket).or_default();
        for (chain, mark) in marks {
            match told.get_mut(chain) {
                Some(to) => *to = mark.to.max(*to),
                None => drop(told.insert(chain.clone(), mark.to)),
            }
        }
    }

    /// The first offset that was not told of; 0: of nothing.
    pub fn to(&self, bucket: u16, chain: &ChainId) -> Offset {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&bucket).and_then(|told| told.get(chain)).copied().unwrap_or(Offset(0))
    }
}
