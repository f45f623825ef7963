//! Marks: up to where a store of hot entries vouches for a chain, and how a mark is moved. Shapes only.

use std::sync::Arc;

use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

/// Per partition and bucket: every entry with an offset in [from, to) was written to this store before the mark moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub from: Offset,
    /// Exclusive; the owner's position, which passes control records.
    pub to: Offset,
    /// Everything appended to the partition before this time (recorded time) is below `to`.
    pub complete_through: Micros,
    /// Keys of sagas whose newest entry is below this were let expire ([`HotStore::settle`]).
    pub settled: Offset,
}

/// A compare-and-set of one mark. After an unknown outcome `Found(Some(new))` tells that the earlier try did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkMove {
    pub chain: ChainId,
    pub bucket: u16,
    /// The value last known; `None`: no mark.
    pub expect: Option<Mark>,
    pub new: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkOutcome {
    Moved,
    /// Another value or none was there: nothing changed.
    Found(Option<Mark>),
    /// The expected value was there, but not all of what was written before: the store lost it. Nothing changed; write
    /// it again, whole.
    Unproved,
}

/// The marks of a bucket; shared by the reads of one call.
pub type Marks = Arc<[(ChainId, Mark)]>;
