//! Every object name of the cold store. Names hold topics, numbers and nothing of a saga.
//!
//! All are relative to the store's prefix. `l1/` and `manifest/` are kept free for compaction.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::saga::position::{ChainId, Offset};

/// The installation that the archive belongs to, the one before it at the number before.
pub fn owner(number: u64) -> String {
    format!("owner/{number:020}.json")
}

/// Written, and taken away again, where a store without an owner is looked at.
pub fn owner_probe() -> String {
    "owner/probe.json".to_owned()
}

/// A partition count under which the replay log was written, the one before it at the number before.
pub fn log_count(topic: &str, number: u64) -> String {
    format!("replay-log/{topic}/{number:020}.json")
}

/// The manifest of a list of sagas. `Invalid`: not an id that a list can have.
pub fn batch_manifest(list_id: &str) -> Result<String> {
    match Uuid::try_parse(list_id) {
        Ok(id) if list_id.len() == 36 => Ok(format!("batches/{id}/manifest.json")),
        _ => Err(Error::invalid("request_invalid", "plan_id: not a UUID")),
    }
}

/// Rows of a list, by whom they were written.
pub fn batch_rows(list_id: &str, folder: &str, number: usize) -> String {
    format!("batches/{list_id}/{folder}/{number:06}.jsonl")
}

/// A segment of a chain, by its first offset.
pub fn segment(chain: &ChainId, start: Offset) -> String {
    format!("l0/{}/{}/{}/{:020}.parquet", chain.topic, chain.incarnation, chain.partition, start.0)
}

/// Where the chain begins: made once, before its first segment.
pub fn chain_start(chain: &ChainId) -> String {
    format!("catalog/{}/{}/{}/start.json", chain.topic, chain.incarnation, chain.partition)
}

/// A catalog file: `number` counts the files of its level from 0.
pub fn catalog(chain: &ChainId, level: u8, number: u64) -> String {
    format!("catalog/{}/{}/{}/{level}/{number:020}.idx", chain.topic, chain.incarnation, chain.partition)
}

/// Where the chain's accepted gaps stand.
pub fn gaps(chain: &ChainId) -> String {
    format!("catalog/{}/{}/{}/gaps/", chain.topic, chain.incarnation, chain.partition)
}

/// An accepted gap, by its first and last offset.
pub fn gap(chain: &ChainId, first: Offset, last: Offset) -> String {
    format!("{}{:020}-{:020}.json", gaps(chain), first.0, last.0)
}

/// The first and last offset in the name of a gap.
pub fn read_gap(key: &str) -> Option<(Offset, Offset)> {
    let (first, last) = key.rsplit('/').next()?.strip_suffix(".json")?.split_once('-')?;
    Some((Offset(first.parse().ok()?), Offset(last.parse().ok()?)))
}
