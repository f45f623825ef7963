//! A catalog file: which of 16 (level 1), 256 (level 2) or 4096 (level 3) consecutive segments hold a saga.
//!
//! A hint that saves requests: the chain is the truth, and a file that is missing is made by the next owner. Knows no
//! store.
//!
//! Blocks of up to 2048 entries, sorted by hash and segment, each compressed with zstd, as arrays: u64 hashes, u16
//! segments (0: the first covered), i64 first effective times. Then a sealed block (`cold::footer`), little-endian: u32
//! version, u32 length and text of the topic, u32 incarnation, i32 partition, u8 level as u32, u64 number; u32 segments,
//! of each i64 start, i64 end, u32 tail length, u32 has rows, i64 least and i64 greatest effective time, i64
//! complete_through; u64 entries; u32 blocks, of each u64 first hash, u32 entries, u32 length, u32 CRC-32; the filter.

use std::ops::Range;

use bytes::{BufMut, Bytes};

use crate::cold::filter::Filter;
use crate::cold::footer::{self, BlockFields, Magic};
use crate::cold::keys;
use crate::cold::segment::SegmentRef;
use crate::error::{Error, Result};
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

pub const MAGIC: Magic = *b"RESAGAC1";
/// Files of one level, or segments, that one file of the next level covers.
pub const FAN: usize = 16;
pub const TOP_LEVEL: u8 = 3;
/// A level that would have more entries than this is left out: the level below answers.
pub const MAX_ENTRIES: u64 = 2_000_000;
const BLOCK: usize = 2048;
const ENTRY_BYTES: usize = 18;
/// Version 1 had XXH3-64 as saga hash.
const VERSION: u32 = 2;
const ZSTD_LEVEL: i32 = 1;

/// Segments that a file of this level covers.
pub fn span(level: u8) -> u64 {
    (FAN as u64).pow(u32::from(level))
}

/// A saga has rows in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogEntry {
    pub hash: u64,
    /// Counted from the first segment covered.
    pub segment: u16,
    /// Microseconds.
    pub first_effective: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    first_hash: u64,
    entries: u32,
    offset: u64,
    len: u32,
    crc: u32,
}

/// All of a file but its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFile {
    pub chain: ChainId,
    pub level: u8,
    pub number: u64,
    pub segments: Vec<SegmentRef>,
    pub entries: u64,
    blocks: Vec<Block>,
    filter: Filter,
}

impl CatalogFile {
    /// The file's bytes, and what is kept of them in memory. `entries` must be sorted.
    pub fn build(
        chain: &ChainId,
        level: u8,
        number: u64,
        segments: Vec<SegmentRef>,
        entries: &[CatalogEntry],
    ) -> Result<(Bytes, Self)> {
        let mut out = Vec::new();
        let mut blocks = Vec::with_capacity(entries.len().div_ceil(BLOCK));
        for part in entries.chunks(BLOCK) {
            let mut raw = Vec::with_capacity(part.len() * ENTRY_BYTES);
            part.iter().for_each(|e| raw.put_u64_le(e.hash));
            part.iter().for_each(|e| raw.put_u16_le(e.segment));
            part.iter().for_each(|e| raw.put_i64_le(e.first_effective));
            let packed = zstd::bulk::compress(&raw, ZSTD_LEVEL).map_err(|e| Error::bug(format!("compress catalog: {e}")))?;
            blocks.push(Block {
                first_hash: part[0].hash,
                entries: part.len() as u32,
                offset: out.len() as u64,
                len: packed.len() as u32,
                crc: crc32fast::hash(&packed),
            });
            out.extend_from_slice(&packed);
        }
        let different = entries.chunk_by(|a, b| a.hash == b.hash).count();
        let filter = Filter::new(entries.iter().map(|e| e.hash), different);
        let entries = entries.len() as u64;
        let file = Self { chain: chain.clone(), level, number, segments, entries, blocks, filter };
        out.extend_from_slice(&footer::seal(&file.head(), MAGIC)?);
        Ok((out.into(), file))
    }

    fn head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32_le(VERSION);
        out.put_u32_le(self.chain.topic.len() as u32);
        out.put_slice(self.chain.topic.as_bytes());
        out.put_u32_le(self.chain.incarnation);
        out.put_u32_le(self.chain.partition as u32);
        out.put_u32_le(u32::from(self.level));
        out.put_u64_le(self.number);
        out.put_u32_le(self.segments.len() as u32);
        for segment in &self.segments {
            out.put_i64_le(segment.start.0);
            out.put_i64_le(segment.end.0);
            out.put_u32_le(segment.tail_len);
            out.put_u32_le(u32::from(segment.effective.is_some()));
            let (min, max) = segment.effective.unwrap_or_default();
            out.put_i64_le(min.0);
            out.put_i64_le(max.0);
            out.put_i64_le(segment.complete_through.0);
        }
        out.put_u64_le(self.entries);
        out.put_u32_le(self.blocks.len() as u32);
        for block in &self.blocks {
            out.put_u64_le(block.first_hash);
            out.put_u32_le(block.entries);
            out.put_u32_le(block.len);
            out.put_u32_le(block.crc);
        }
        self.filter.write(&mut out);
        out
    }

    /// Reads the end of a file; `Err(needed)` inside: give that many bytes of its end.
    pub fn read(end: &[u8]) -> Result<Result<Self, u64>> {
        let len = footer::sealed_len(end, MAGIC)?;
        if len > end.len() {
            return Ok(Err(len as u64));
        }
        Self::decode(footer::unseal(end, MAGIC)?).map(Ok)
    }

    fn decode(head: Bytes) -> Result<Self> {
        let corrupt = || Error::corrupt("read catalog: its header names no topic, level or segment that can be");
        let mut fields = BlockFields(head);
        if fields.u32()? != VERSION {
            return Err(Error::corrupt("read catalog: its version is not known here"));
        }
        let len = fields.u32()? as usize;
        let topic = String::from_utf8(fields.bytes(len)?.to_vec()).map_err(|_| corrupt())?;
        let chain = ChainId { topic: topic.into(), incarnation: fields.u32()?, partition: fields.u32()? as i32 };
        let level = u8::try_from(fields.u32()?).map_err(|_| corrupt())?;
        let number = fields.u64()?;
        let count = fields.u32()? as usize;
        let mut segments = fields.many(count, 48, |f| {
            let (start, end, tail_len) = (Offset(f.i64()?), Offset(f.i64()?), f.u32()?);
            let (has_rows, effective) = (f.u32()? == 1, (Micros(f.i64()?), Micros(f.i64()?)));
            let (effective, complete_through) = (has_rows.then_some(effective), Micros(f.i64()?));
            Ok(SegmentRef { chain: chain.clone(), ordinal: 0, start, end, tail_len, effective, complete_through })
        })?;
        if level == 0 || level > TOP_LEVEL || segments.len() as u64 != span(level) {
            return Err(corrupt());
        }
        for (ordinal, segment) in (number * span(level)..).zip(&mut segments) {
            segment.ordinal = ordinal;
        }
        let entries = fields.u64()?;
        let count = fields.u32()? as usize;
        let mut offset = 0;
        let mut blocks = fields.many(count, 20, |f| {
            Ok(Block { first_hash: f.u64()?, entries: f.u32()?, offset: 0, len: f.u32()?, crc: f.u32()? })
        })?;
        for block in &mut blocks {
            block.offset = offset;
            offset += u64::from(block.len);
        }
        let filter = Filter::read(&mut fields)?;
        fields.end()?;
        Ok(Self { chain, level, number, segments, entries, blocks, filter })
    }

    pub fn key(&self) -> String {
        keys::catalog(&self.chain, self.level, self.number)
    }

    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// Blocks that may have this hash.
    pub fn blocks_of(&self, hash: u64) -> Range<usize> {
        // Equal hashes may begin at the end of the block before the first that starts with them.
        let from = self.blocks.partition_point(|b| b.first_hash < hash).saturating_sub(1);
        let to = self.blocks.partition_point(|b| b.first_hash <= hash);
        from..to.max(from)
    }

    pub fn all_blocks(&self) -> Range<usize> {
        0..self.blocks.len()
    }

    /// Where blocks lie in the file.
    pub fn bytes_of(&self, blocks: Range<usize>) -> Range<u64> {
        match &self.blocks[blocks] {
            [] => 0..0,
            [first, .., last] => first.offset..last.offset + u64::from(last.len),
            [one] => one.offset..one.offset + u64::from(one.len),
        }
    }

    /// Entries of blocks from their bytes.
    pub fn entries_of(&self, blocks: Range<usize>, mut bytes: Bytes) -> Result<Vec<CatalogEntry>> {
        let mut entries = Vec::new();
        for block in &self.blocks[blocks] {
            if bytes.len() < block.len as usize {
                return Err(Error::corrupt("read catalog: cut off"));
            }
            let packed = bytes.split_to(block.len as usize);
            if crc32fast::hash(&packed) != block.crc || block.entries as usize > BLOCK {
                return Err(Error::corrupt("read catalog: a block does not fit its checksum"));
            }
            let count = block.entries as usize;
            let raw =
                zstd::bulk::decompress(&packed, count * ENTRY_BYTES).map_err(|e| Error::corrupt(format!("read catalog: {e}")))?;
            let mut fields = BlockFields(raw.into());
            let hashes = fields.many(count, 8, BlockFields::u64)?;
            let segments = fields.many(count, 2, BlockFields::u16)?;
            let times = fields.many(count, 8, BlockFields::i64)?;
            fields.end()?;
            let zipped = hashes.into_iter().zip(segments).zip(times);
            entries.extend(zipped.map(|((hash, segment), first_effective)| CatalogEntry { hash, segment, first_effective }));
        }
        Ok(entries)
    }
}
