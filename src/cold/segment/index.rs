//! The index of a segment: what it says about itself, where its row groups and columns are, and which rows each saga
//! has. Kept sealed before the Parquet footer, where other readers pass over it.
//!
//! Block, little-endian: u32 length and JSON of [`SegmentInfo`]; u32 row groups, of each u64 place in the object, u32
//! rows, i64 least and i64 greatest effective time, and per column u32 length and u32 CRC-32 of its bytes; u32 sagas,
//! then as arrays, sorted by hash: u64 hashes, u32 first rows, u32 row counts, i64 first effective times, u64 last entry sequences.

use std::ops::Range;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::SegmentInfo;
use super::columns::{COUNT, LOOKUP};
use crate::cold::footer::{self, BlockFields, Magic};
use crate::error::{Error, Result};
use crate::saga::installation::Installation;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

pub const MAGIC: Magic = *b"RESAGAS1";
/// Length of the Parquet footer, and its magic.
const PARQUET_END: usize = 8;

/// One row group: column chunks lie side by side from `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub start: u64,
    pub first_row: u32,
    pub rows: u32,
    /// Least and greatest, microseconds.
    pub effective: (i64, i64),
    pub chunks: Vec<Chunk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub len: u32,
    pub crc: u32,
}

/// The rows of one saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaRows {
    pub hash: u64,
    /// Counted over the whole segment.
    pub first_row: u32,
    pub rows: u32,
    pub first_effective: i64,
    /// Entry sequence of the last of them.
    pub last_sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIndex {
    pub info: SegmentInfo,
    /// Bytes from the start of the block to the end of the object.
    pub tail_len: u32,
    pub groups: Vec<Group>,
    /// Sorted by hash.
    pub sagas: Vec<SagaRows>,
}

impl Group {
    /// Bytes of these columns in the object.
    pub fn bytes_of(&self, columns: Range<usize>) -> Range<u64> {
        let len = |chunks: &[Chunk]| chunks.iter().map(|c| u64::from(c.len)).sum::<u64>();
        let from = self.start + len(&self.chunks[..columns.start]);
        from..from + len(&self.chunks[columns])
    }
}

impl SegmentIndex {
    /// Rows of sagas with this hash (of more than one only if two hashes meet).
    pub fn find(&self, hash: u64) -> &[SagaRows] {
        let from = self.sagas.partition_point(|s| s.hash < hash);
        let len = self.sagas[from..].partition_point(|s| s.hash == hash);
        &self.sagas[from..from + len]
    }

    /// The row groups that hold these rows.
    pub fn groups_of(&self, rows: &SagaRows) -> &[Group] {
        let from = self.groups.partition_point(|g| g.first_row + g.rows <= rows.first_row);
        let len = self.groups[from..].partition_point(|g| g.first_row < rows.first_row + rows.rows);
        &self.groups[from..from + len]
    }

    /// Bytes of the object that a look-up of these rows needs.
    pub fn lookup_bytes(&self, rows: &SagaRows) -> Range<u64> {
        match self.groups_of(rows) {
            [] => 0..0,
            [first, .., last] => first.bytes_of(LOOKUP).start..last.bytes_of(LOOKUP).end,
            [one] => one.bytes_of(LOOKUP),
        }
    }

    /// Bytes of memory, about.
    pub fn weight(&self) -> usize {
        512 + self.info.fold_settings.len() + self.groups.len() * (64 + COUNT * 8) + self.sagas.len() * size_of::<SagaRows>()
    }

    /// The sealed block.
    pub fn seal(&self) -> Result<Vec<u8>> {
        let info = info_text(&self.info)?;
        let mut out = Vec::with_capacity(info.len() + self.groups.len() * (28 + 8 * COUNT) + self.sagas.len() * 32 + 16);
        out.put_u32_le(info.len() as u32);
        out.put_slice(info.as_bytes());
        out.put_u32_le(self.groups.len() as u32);
        for group in &self.groups {
            out.put_u64_le(group.start);
            out.put_u32_le(group.rows);
            out.put_i64_le(group.effective.0);
            out.put_i64_le(group.effective.1);
            for chunk in &group.chunks {
                out.put_u32_le(chunk.len);
                out.put_u32_le(chunk.crc);
            }
        }
        out.put_u32_le(self.sagas.len() as u32);
        self.sagas.iter().for_each(|s| out.put_u64_le(s.hash));
        self.sagas.iter().for_each(|s| out.put_u32_le(s.first_row));
        self.sagas.iter().for_each(|s| out.put_u32_le(s.rows));
        self.sagas.iter().for_each(|s| out.put_i64_le(s.first_effective));
        self.sagas.iter().for_each(|s| out.put_u64_le(s.last_sequence));
        footer::seal(&out, MAGIC)
    }

    /// Reads the end of an object. `Err(needed)` inside: give that many bytes of its end.
    pub fn read(end: &[u8]) -> Result<Result<Self, u64>> {
        let no_parquet = || Error::corrupt("read segment: it does not end as Parquet does");
        let before = end.len().checked_sub(PARQUET_END).ok_or_else(no_parquet)?;
        let (rest, last) = end.split_at(before);
        let (footer, magic) = last.split_at(4);
        if magic != b"PAR1" {
            return Err(no_parquet());
        }
        let footer = u32::from_le_bytes(footer.try_into().map_err(|_| no_parquet())?) as usize;
        let after_block = footer + PARQUET_END;
        let Some(at) = rest.len().checked_sub(footer).filter(|at| *at >= footer::TRAILER) else {
            return Ok(Err((after_block + footer::TRAILER) as u64));
        };
        let tail_len = footer::sealed_len(&rest[..at], MAGIC)? + after_block;
        if tail_len > end.len() {
            return Ok(Err(tail_len as u64));
        }
        Self::decode(footer::unseal(&rest[..at], MAGIC)?, tail_len as u32).map(Ok)
    }

    fn decode(block: Bytes, tail_len: u32) -> Result<Self> {
        let mut fields = BlockFields(block);
        let len = fields.u32()? as usize;
        let info = parse_info(&fields.bytes(len)?)?;
        let count = fields.u32()? as usize;
        let mut first_row = 0;
        let mut groups = fields.many(count, 28 + 8 * COUNT, |f| {
            Ok(Group {
                start: f.u64()?,
                first_row: 0,
                rows: f.u32()?,
                effective: (f.i64()?, f.i64()?),
                chunks: f.many(COUNT, 8, |f| Ok(Chunk { len: f.u32()?, crc: f.u32()? }))?,
            })
        })?;
        for group in &mut groups {
            group.first_row = first_row;
            first_row += group.rows;
        }
        let count = fields.u32()? as usize;
        let hashes = fields.many(count, 8, BlockFields::u64)?;
        let first_rows = fields.many(count, 4, BlockFields::u32)?;
        let rows = fields.many(count, 4, BlockFields::u32)?;
        let first = fields.many(count, 8, BlockFields::i64)?;
        let last = fields.many(count, 8, BlockFields::u64)?;
        fields.end()?;
        let sagas = (0..count)
            .map(|i| SagaRows {
                hash: hashes[i],
                first_row: first_rows[i],
                rows: rows[i],
                first_effective: first[i],
                last_sequence: last[i],
            })
            .collect();
        Ok(Self { info, tail_len, groups, sagas })
    }
}

/// [`SegmentInfo`] as it is written: times in microseconds, the hash in hexadecimal.
#[derive(Serialize, Deserialize)]
struct InfoText {
    version: u32,
    topic: String,
    incarnation: u32,
    partition: i32,
    ordinal: u64,
    start: i64,
    end: i64,
    rows: u64,
    sagas: u64,
    entries_hash: String,
    min_effective_time: Option<i64>,
    max_effective_time: Option<i64>,
    complete_through: i64,
    leader_epoch: Option<i32>,
    topic_id: Option<String>,
    /// Of the log's clock.
    #[serde(default)]
    believed_time: Option<i64>,
    #[serde(default)]
    doubted_time: Option<i64>,
    cluster_id: String,
    group_id: String,
    fold_settings: String,
    gap: bool,
}

/// Version 2 had XXH3-64 as saga hash and did not say whose it was.
const VERSION: u32 = 3;

/// Read before all else: another version may lack what this one has.
#[derive(Deserialize)]
struct VersionText {
    version: u32,
}

/// The info as JSON; also in the Parquet footer, for other readers.
pub fn info_text(info: &SegmentInfo) -> Result<String> {
    let text = InfoText {
        version: VERSION,
        topic: info.chain.topic.to_string(),
        incarnation: info.chain.incarnation,
        partition: info.chain.partition,
        ordinal: info.ordinal,
        start: info.start.0,
        end: info.end.0,
        rows: info.rows,
        sagas: info.sagas,
        entries_hash: format!("{:032x}", info.entries_hash),
        min_effective_time: info.effective.map(|(min, _)| min.0),
        max_effective_time: info.effective.map(|(_, max)| max.0),
        complete_through: info.complete_through.0,
        leader_epoch: info.leader_epoch,
        topic_id: info.topic_id.clone(),
        believed_time: info.clock.believed.map(|at| at.0),
        doubted_time: info.clock.doubted.map(|at| at.0),
        cluster_id: info.installation.cluster_id.clone(),
        group_id: info.installation.group_id.clone(),
        fold_settings: info.fold_settings.clone(),
        gap: info.gap,
    };
    serde_json::to_string(&text).map_err(|e| Error::bug(format!("write segment info: {e}")))
}

fn parse_info(text: &[u8]) -> Result<SegmentInfo> {
    let corrupt = |why: &dyn std::fmt::Display| Error::corrupt(format!("read segment info in the footer: {why}"));
    let VersionText { version } = serde_json::from_slice(text).map_err(|e| corrupt(&e))?;
    if version != VERSION {
        return Err(Error::corrupt(format!("read segment info: version {version}, this build reads version {VERSION}")));
    }
    let info: InfoText = serde_json::from_slice(text).map_err(|e| corrupt(&e))?;
    Ok(SegmentInfo {
        chain: ChainId { topic: info.topic.into(), incarnation: info.incarnation, partition: info.partition },
        ordinal: info.ordinal,
        start: Offset(info.start),
        end: Offset(info.end),
        rows: info.rows,
        sagas: info.sagas,
        entries_hash: u128::from_str_radix(&info.entries_hash, 16).map_err(|e| corrupt(&e))?,
        effective: info.min_effective_time.map(Micros).zip(info.max_effective_time.map(Micros)),
        complete_through: Micros(info.complete_through),
        leader_epoch: info.leader_epoch,
        topic_id: info.topic_id,
        clock: LogClock { believed: info.believed_time.map(Micros), doubted: info.doubted_time.map(Micros) },
        installation: Installation { cluster_id: info.cluster_id, group_id: info.group_id },
        fold_settings: info.fold_settings,
        gap: info.gap,
    })
}
