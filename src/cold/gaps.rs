//! Offsets that were lost and given up by an operator: one small object each, beside the segment without rows.

use crate::cold::keys;
use crate::cold::object_store::ObjectStore;
use crate::error::{Error, Result};
use crate::saga::position::{ChainId, Offset};

/// Most gaps of one chain that are looked at.
const MAX_GAPS: usize = 10_000;

/// The ranges given up, ascending: first and last offset. For the owner, on assignment.
pub async fn gaps(store: &dyn ObjectStore, chain: &ChainId) -> Result<Vec<(Offset, Offset)>> {
    let names = store.list(&keys::gaps(chain), None, MAX_GAPS).await?;
    let read = |name: &String| {
        keys::read_gap(name)
            .ok_or_else(|| Error::corrupt(format!("read accepted gaps: object {name}, expected a name <first>-<last>.json")))
    };
    names.iter().map(read).collect()
}

/// Names the range for good; before the segment that covers it.
pub async fn give_up(store: &dyn ObjectStore, chain: &ChainId, first: Offset, last: Offset, why: String) -> Result<()> {
    store.create(&keys::gap(chain, first, last), why.into(), &Vec::new()).await.map(|_| ())
}
