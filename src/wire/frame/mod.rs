//! Frames: entries and sagas as the stores keep them. Equal input gives equal bytes, so writing one twice changes
//! nothing.
//!
//! A frame is a version byte and a protobuf message. A member of the hot store is a header of [`HEADER`] bytes and a
//! frame, compressed with zstd where that is smaller. Must not know where a frame is kept.

mod columns;
mod convert;
mod encode;
mod out;
mod proto;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, Result};
use crate::saga::entry::Entry;
use crate::saga::event::ContextChange;
use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::saga::position::{EntrySequence, Offset, Position, SagaId};
use crate::saga::splice::splice;
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;
pub use columns::EntryColumns;
use out::Out;

/// First byte of every frame.
const VERSION: u8 = 1;
/// Entry sequence u64, partition u32, offset u64, flags u8, dictionary id u8, fold u32, and u32 of XXH3-64 over all else; big-endian.
pub const HEADER: usize = CHECK + 4;
/// Where the checksum stands.
const CHECK: usize = 8 + 4 + 8 + 1 + 1 + 4;
/// Bytes that a compressed frame may say it has unpacked. No frame is refused for its size alone: results may grow a
/// state beyond any record, and what was written must be read again.
const MAX_UNPACKED: usize = 1 << 30;
/// Shorter frames hardly get smaller, and building zstd's tables for each costs more than all else about an event.
const MIN_TO_COMPRESS: usize = 512;
const LEVEL: i32 = 1;
/// Bytes of unused room that a member may keep.
const MAX_SPARE: usize = 512;

/// The frame is compressed.
const COMPRESSED: u8 = 1;
/// The frame holds the saga after the entry.
const SAGA: u8 = 2;
/// There is no frame: it is larger than the store takes.
const ABSENT: u8 = 4;
/// No dictionary.
const NO_DICTIONARY: u8 = 0;

/// What a member says of itself before its frame is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberHeader {
    pub sequence: EntrySequence,
    pub partition: i32,
    pub offset: Offset,
    /// It holds the saga after the entry: reading can begin here.
    pub has_saga: bool,
    /// By which fold the entry was made ([`FoldSettings::id`](crate::saga::fold_settings::FoldSettings::id)).
    pub fold: u32,
}

/// An entry for the hot store, under its saga's key. With `saga_after` it can be read on its own, and the saga's window is left out;
/// without, a full context is kept as its difference from `context_before` where that is shorter.
/// `fold`: by which the entry was made.
pub fn encode_member(entry: &Entry, fold: u32, context_before: Option<&Json>, saga_after: Option<&Saga>) -> Bytes {
    let context = match (&entry.event.context, saga_after, context_before) {
        (ContextChange::Full(full), Some(saga), _) if *full == saga.state.context => encode::ContextForm::Elsewhere,
        (change @ ContextChange::Full(full), None, Some(before)) => {
            splice_or_full(before, full).unwrap_or(encode::ContextForm::Own(change))
        }
        (change, _, _) => encode::ContextForm::Own(change),
    };
    let flags = if saga_after.is_some() { SAGA } else { 0 };
    let size = context.len() + saga_after.map_or(0, |saga| saga.state.context.len() + 512);
    let mut out = Out::with_capacity(HEADER + 256 + size);
    header(&mut out, entry, fold, flags);
    out.raw(&[VERSION]);
    out.message(1, |out| encode::entry(out, entry, encode::Beside::Member, context));
    out.opt_message(2, saga_after, |out, saga| {
        let parts = encode::Parts { context: saga.state.context.as_str(), beside: Some(entry), window: false };
        encode::saga(out, saga, parts);
    });
    let mut plain = out.end();
    let frame = &plain[HEADER..];
    let packs = (MIN_TO_COMPRESS..=MAX_UNPACKED).contains(&frame.len());
    match packs.then(|| compress(frame)).flatten().filter(|packed| packed.len() < frame.len()) {
        None => {
            // It may wait in memory for long.
            if plain.capacity() - plain.len() > MAX_SPARE {
                plain.shrink_to_fit();
            }
            sealed(plain)
        }
        Some(packed) => {
            let mut out = Out::with_capacity(HEADER + packed.len());
            header(&mut out, entry, fold, flags | COMPRESSED);
            out.raw(&packed);
            sealed(out.end())
        }
    }
}

/// In place of a member that is too large for the store: says that there is an entry, and not what it is.
pub fn absent_member(entry: &Entry, fold: u32) -> Bytes {
    let mut out = Out::with_capacity(HEADER);
    header(&mut out, entry, fold, ABSENT);
    sealed(out.end())
}

fn header(out: &mut Out, entry: &Entry, fold: u32, flags: u8) {
    out.raw(&entry.sequence.0.to_be_bytes());
    out.raw(&(entry.position.partition as u32).to_be_bytes());
    out.raw(&(entry.position.offset.0 as u64).to_be_bytes());
    out.raw(&[flags, NO_DICTIONARY]);
    out.raw(&fold.to_be_bytes());
    out.raw(&[0; 4]);
}

/// The header alone, unchecked.
pub fn peek_member(bytes: &[u8]) -> Result<MemberHeader> {
    Ok(split_member(bytes)?.0)
}

/// Is it as it was written? One that is not must not be passed over for what its header says.
pub fn is_intact(member: &[u8]) -> bool {
    split_member(member).is_ok() && member[CHECK..HEADER] == checksum(member)
}

/// With its checksum in place.
fn sealed(mut member: Vec<u8>) -> Bytes {
    let check = checksum(&member);
    member[CHECK..HEADER].copy_from_slice(&check);
    member.into()
}

/// Of a member that has its header.
fn checksum(member: &[u8]) -> [u8; 4] {
    let hash = xxh3_64_with_seed(&member[HEADER..], xxh3_64(&member[..CHECK]));
    (hash as u32).to_be_bytes()
}

/// A member of this saga's key. A full context may come back as [`ContextChange::Splice`].
pub fn decode_member(saga_id: &SagaId, bytes: &[u8]) -> Result<StoredEntry> {
    let (header, flags, body) = split_member(bytes)?;
    if bytes[CHECK..HEADER] != checksum(bytes) {
        return Err(Error::corrupt("decode member: its checksum is not that of its bytes: it is damaged"));
    }
    if flags & ABSENT != 0 {
        return Err(Error::corrupt("decode member: the entry was too large for the hot store"));
    }
    let member: proto::Member = if flags & COMPRESSED == 0 { from_frame(body)? } else { from_frame(&decompress(body)?)? };
    let mut entry = member.entry.ok_or_else(|| Error::corrupt("decode member: no entry"))?;
    entry.sequence = header.sequence.0;
    let occurred_time = entry.effective_time.wrapping_add(entry.occurred_after);
    let columns = EntryColumns {
        saga_id: saga_id.clone(),
        event_id: std::mem::take(&mut entry.event_id),
        position: Position { topic: entry.topic.as_str().into(), partition: header.partition, offset: header.offset },
        occurred_at: (!entry.no_occurred_at).then(|| Micros(entry.occurred_at.unwrap_or(occurred_time))),
        recorded_time: Micros(entry.effective_time.wrapping_add(entry.recorded_after)),
    };
    let (mut entry, elsewhere) = convert::entry_of_message(entry, columns)?;
    let saga = member.saga.map(|saga| convert::saga_of_message(*saga, Some(&entry))).transpose()?;
    if elsewhere {
        let saga = saga.as_ref().ok_or_else(|| Error::corrupt("decode member: a context without the saga that holds it"))?;
        entry.event.context = ContextChange::Full(saga.state.context.clone());
    }
    if saga.is_some() != header.has_saga {
        return Err(Error::corrupt("decode member: header and frame differ"));
    }
    Ok(StoredEntry { entry, saga: saga.map(Box::new) })
}

/// An entry for the cold store, which keeps [`EntryColumns`] and the context after it in columns of their own.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let context = match &entry.event.context {
        none @ ContextChange::None => encode::ContextForm::Own(none),
        _ => encode::ContextForm::Elsewhere,
    };
    to_frame(128, |out| encode::entry(out, entry, encode::Beside::Row, context))
}

/// The entry with [`ContextChange::None`], and whether it changed the context.
pub fn decode_entry(columns: EntryColumns, bytes: &[u8]) -> Result<(Entry, bool)> {
    convert::entry_of_message(from_frame(bytes)?, columns)
}

/// A saga with all that the fold needs to go on, except its context (`{}`), which the caller keeps elsewhere.
pub fn encode_saga(saga: &Saga) -> Vec<u8> {
    let parts = encode::Parts { context: "{}", beside: None, window: true };
    to_frame(512 + saga.window.len() * 16, |out| encode::saga(out, saga, parts))
}

pub fn decode_saga(bytes: &[u8]) -> Result<Saga> {
    convert::saga_of_message(from_frame(bytes)?, None)
}

fn split_member(bytes: &[u8]) -> Result<(MemberHeader, u8, &[u8])> {
    let corrupt = |why: &str| Error::corrupt(format!("decode member: {why}"));
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(corrupt("shorter than its header"));
    };
    let number = |from: usize, to: usize| header[from..to].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
    let (flags, dictionary) = (header[20], header[21]);
    if flags & !(COMPRESSED | SAGA | ABSENT) != 0 {
        return Err(corrupt("unknown flags"));
    }
    if dictionary != NO_DICTIONARY {
        return Err(corrupt("unknown dictionary"));
    }
    let header = MemberHeader {
        sequence: EntrySequence(number(0, 8)),
        partition: i32::try_from(number(8, 12)).map_err(|_| corrupt("partition out of range"))?,
        offset: Offset(i64::try_from(number(12, 20)).map_err(|_| corrupt("offset out of range"))?),
        has_saga: flags & SAGA != 0,
        fold: number(22, 26) as u32,
    };
    Ok((header, flags, body))
}

fn to_frame(size: usize, write: impl FnOnce(&mut Out)) -> Vec<u8> {
    let mut out = Out::with_capacity(size);
    out.raw(&[VERSION]);
    write(&mut out);
    out.end()
}

fn from_frame<M: Message + Default>(frame: &[u8]) -> Result<M> {
    match frame {
        [VERSION, message @ ..] => M::decode(message).map_err(|e| Error::corrupt(format!("decode frame: {e}"))),
        [version, ..] => Err(Error::corrupt(format!("decode frame: version {version}, this build reads version {VERSION}"))),
        [] => Err(Error::corrupt("decode frame: it is empty")),
    }
}

/// A splice must earn the reading of what came before: `None` where it is not much shorter.
fn splice_or_full<'a>(before: &Json, full: &'a Json) -> Option<encode::ContextForm<'a>> {
    let (prefix, suffix, middle) = splice(before.as_str(), full.as_str());
    (middle.len() + 16 < full.as_str().len()).then_some(encode::ContextForm::Splice(prefix, suffix, middle))
}

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// `None`: it could not be made smaller (or not at all).
fn compress(frame: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        slot.as_mut()?.compress(frame).ok()
    })
}

fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    let corrupt = || Error::corrupt("decode member: not a compressed frame");
    // The size stands in the packed frame; without this check a few bytes could ask for all of the memory.
    let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().ok_or_else(corrupt)?;
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_UNPACKED).ok_or_else(corrupt)?;
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        slot.as_mut().ok_or_else(corrupt)?.decompress(packed, size).map_err(|_| corrupt())
    })
}
