//! A segment: the entries of one range of offsets of one partition, as one Parquet object with an index of our own.
//!
//! Knows Parquet and entries; must not know the object store or which segment follows which.

pub(in crate::cold) mod columns;
mod contexts;
pub(in crate::cold) mod index;
pub(in crate::cold) mod read;
pub(in crate::cold) mod write;

use std::sync::Arc;

use bytes::Bytes;

use crate::saga::entry::Entry;
use crate::saga::event::Kind;
use crate::saga::installation::Installation;
use crate::saga::json::Json;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId};
use crate::saga::state::Status;
use crate::saga::time::Micros;

/// Bytes of a context below which every change is stored as the whole context. Of larger ones small changes are stored as
/// they came, or a few bytes of input would become megabytes.
pub const SMALL_CONTEXT: usize = 4 << 10;

/// One entry to be stored, with what the fold gave after it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NewRow {
    pub entry: Arc<Entry>,
    /// Of the state after the entry.
    pub status: Status,
    /// The context after the entry, whether the entry changed it or not: needed on a saga's first row in the segment and
    /// where it is shorter than [`SMALL_CONTEXT`]. `None`: as the entry's event tells.
    pub context: Option<Json>,
    /// The whole fold after the entry, by [`encode_saga`](crate::wire::frame::encode_saga): needed on a saga's first row in
    /// the segment, ignored on others.
    pub saga: Option<Bytes>,
}

/// What is to be appended to a chain. Cheap to clone; rows may be in any order and may be none.
#[derive(Debug, Clone)]
pub struct NewSegment {
    /// First offset covered: the chain's `next()`.
    pub start: Offset,
    /// Last offset covered.
    pub end: Offset,
    #[expect(clippy::rc_buffer, reason = "rows are made as a Vec; a slice would be a copy of them all")]
    pub rows: Arc<Vec<NewRow>>,
    /// Everything appended to the partition before this time (recorded time) has an offset <= `end`.
    pub complete_through: Micros,
    /// Of the record at `end`, where Kafka told.
    pub leader_epoch: Option<i32>,
    /// Kafka's id of the topic, as text, where Kafka told.
    pub topic_id: Option<String>,
    /// After the record at `end`.
    pub clock: LogClock,
    /// Whose it is.
    pub installation: Installation,
    /// The fold settings that the rows were folded with, as text (JSON).
    pub fold_settings: String,
    /// The offsets are gone from the log and were given up (`store accept-gap`): no rows.
    pub gap: bool,
}

impl NewSegment {
    /// Offsets without rows, of which nothing else is told.
    pub fn empty(start: Offset, end: Offset) -> Self {
        Self {
            start,
            end,
            rows: Arc::default(),
            complete_through: Micros::default(),
            leader_epoch: None,
            topic_id: None,
            clock: LogClock::default(),
            installation: Installation::default(),
            fold_settings: String::new(),
            gap: false,
        }
    }

    /// The part of it up to this offset.
    pub fn through(&self, end: Offset) -> Self {
        let rows = self.rows.iter().filter(|row| row.entry.position.offset <= end).cloned().collect();
        Self { end, rows: Arc::new(rows), ..self.clone() }
    }
}

/// What a stored segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    pub chain: ChainId,
    /// Place in the chain, from 0.
    pub ordinal: u64,
    pub start: Offset,
    /// Last offset covered.
    pub end: Offset,
    pub rows: u64,
    pub sagas: u64,
    /// XXH3-128 over the entries (see `docs/data-formats.md`): equal entries, equal hash.
    pub entries_hash: u128,
    /// Least and greatest effective time; `None` without rows.
    pub effective: Option<(Micros, Micros)>,
    pub complete_through: Micros,
    pub leader_epoch: Option<i32>,
    pub topic_id: Option<String>,
    pub clock: LogClock,
    pub installation: Installation,
    pub fold_settings: String,
    pub gap: bool,
}

/// Where a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRef {
    pub chain: ChainId,
    pub ordinal: u64,
    pub start: Offset,
    /// Last offset covered.
    pub end: Offset,
    /// Bytes of the index and footer at the object's end.
    pub tail_len: u32,
    /// Least and greatest effective time; `None` without rows.
    pub effective: Option<(Micros, Micros)>,
    pub complete_through: Micros,
}

/// A row as a search sees it: key columns only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSummary {
    pub saga_id: SagaId,
    pub saga_name: String,
    pub sequence: EntrySequence,
    pub kind: Kind,
    pub step: Option<String>,
    pub error_code: Option<String>,
    pub error_type: Option<String>,
    pub effective_time: Micros,
    /// After the entry.
    pub status: Status,
}
