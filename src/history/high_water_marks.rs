//! The highest offset of each chain that a mark was seen to vouch for: whoever answered from an entry must not say later that it was never
//! there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::hot::Mark;
use crate::saga::position::{ChainId, Offset};

/// Of each bucket of hot and each chain the furthest mark seen.
#[derive(Default)]
pub struct HighWaterMarks(Mutex<HashMap<u16, HashMap<ChainId, Offset>>>);

impl HighWaterMarks {
    pub fn note<'m>(&self, bucket: u16, marks: impl Iterator<Item = (&'m ChainId, Mark)>) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let furthest = buckets.entry(bucket).or_default();
        for (chain, mark) in marks {
            match furthest.get_mut(chain) {
                Some(to) => *to = mark.to.max(*to),
                None => drop(furthest.insert(chain.clone(), mark.to)),
            }
        }
    }

    /// The first offset that no mark vouched for; 0: none was seen.
    pub fn to(&self, bucket: u16, chain: &ChainId) -> Offset {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get(&bucket).and_then(|furthest| furthest.get(chain)).copied().unwrap_or(Offset(0))
    }
}
