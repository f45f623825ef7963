//! Builds the bytes of a segment from rows: sorted by saga and sequence, row groups of about 1 MiB raw.

use std::ops::Range;

use bytes::Bytes;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::{KeyValue, RowGroupMetaDataPtr};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use xxhash_rust::xxh3::Xxh3Default;

use super::columns;
use super::contexts::{Contexts, StoredContext};
use super::index::{Chunk, Group, SagaRows, SegmentIndex, info_text};
use super::{NewRow, NewSegment, SegmentInfo};
use crate::error::{Error, Result};
use crate::saga::entry::Entry;
use crate::saga::position::{ChainId, SagaId};
use crate::saga::state::Anomaly;
use crate::wire::frame;

/// Raw bytes of what a look-up reads after which a row group ends, at the next saga.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes of a usual id or name.
const SHORT_TEXT: usize = 16;
/// A saga that is longer than this is cut.
const GROUP_BYTES_MOST: usize = 8 << 20;

/// A segment ready to be stored.
pub struct BuiltSegment {
    pub bytes: Bytes,
    pub index: SegmentIndex,
}

/// CPU-bound: run it where blocking is allowed.
pub fn build(chain: &ChainId, ordinal: u64, segment: &NewSegment) -> Result<BuiltSegment> {
    let order = sorted(segment)?;
    let mut hash = EntriesHash::default();
    let mut writer =
        SerializedFileWriter::new(Vec::new(), columns::root(), columns::properties()).map_err(|e| bug("begin segment", e))?;
    let mut groups = Vec::new();
    let mut sagas = Vec::new();
    let mut contexts = Contexts::default();
    let mut at = 0;
    while at < order.len() {
        let raw = RawGroup::fill(&order, at, &mut hash, &mut sagas, &mut contexts)?;
        let rows = &order[raw.rows.clone()];
        groups.push(write_group(&mut writer, rows, raw, at)?);
        at += rows.len();
    }
    sagas.sort_unstable_by_key(|s: &SagaRows| (s.hash, s.first_row));
    let info = SegmentInfo {
        chain: chain.clone(),
        ordinal,
        start: segment.start,
        end: segment.end,
        rows: order.len() as u64,
        sagas: sagas.len() as u64,
        entries_hash: hash.all.digest128(),
        effective: order.iter().map(|r| r.entry.effective_time).min().zip(order.iter().map(|r| r.entry.effective_time).max()),
        complete_through: segment.complete_through,
        leader_epoch: segment.leader_epoch,
        topic_id: segment.topic_id.clone(),
        clock: segment.clock,
        installation: segment.installation.clone(),
        fold_settings: segment.fold_settings.clone(),
        gap: segment.gap,
    };
    finish(writer, SegmentIndex { info, tail_len: 0, groups, sagas })
}

fn finish(mut writer: SerializedFileWriter<Vec<u8>>, mut index: SegmentIndex) -> Result<BuiltSegment> {
    let block = index.seal()?;
    let start = writer.bytes_written();
    writer.write_all(&block).map_err(|e| bug("write index", e))?;
    writer.append_key_value_metadata(KeyValue::new("resaga.segment".to_owned(), info_text(&index.info)?));
    writer.append_key_value_metadata(KeyValue::new("resaga.index".to_owned(), format!("{start},{}", block.len())));
    let bytes = writer.into_inner().map_err(|e| bug("end segment", e))?;
    index.tail_len = (bytes.len() - start) as u32;
    Ok(BuiltSegment { bytes: bytes.into(), index })
}

/// By saga and sequence; checks what the role must keep.
fn sorted(segment: &NewSegment) -> Result<Vec<&NewRow>> {
    if segment.end < segment.start || (segment.gap && !segment.rows.is_empty()) {
        return Err(Error::bug("build segment: an empty range, or a gap with rows"));
    }
    let mut order: Vec<&NewRow> = segment.rows.iter().collect();
    order.sort_unstable_by(|a, b| (a.saga_id().as_str(), a.entry.sequence).cmp(&(b.saga_id().as_str(), b.entry.sequence)));
    for row in &order {
        let offset = row.entry.position.offset;
        if offset < segment.start || offset > segment.end {
            return Err(Error::bug(format!("build segment: offset {offset} is outside of {}..={}", segment.start, segment.end)));
        }
    }
    for pair in order.windows(2) {
        if pair[0].saga_id() == pair[1].saga_id() && pair[0].entry.sequence == pair[1].entry.sequence {
            return Err(Error::bug(format!("build segment: two entries {} of one saga", pair[0].entry.sequence)));
        }
    }
    Ok(order)
}

impl NewRow {
    fn saga_id(&self) -> &SagaId {
        &self.entry.event.saga_id
    }
}

/// [`SegmentInfo::entries_hash`], row by row.
#[derive(Default)]
struct EntriesHash {
    all: Xxh3Default,
    /// Short parts, for one call each costs more than their bytes.
    short: Vec<u8>,
}

impl EntriesHash {
    /// More bytes than this are not copied.
    const SHORT: usize = 256;

    fn numbers(&mut self, numbers: [i64; 3]) {
        numbers.iter().for_each(|number| self.short.extend_from_slice(&number.to_le_bytes()));
    }

    /// The length before the bytes; where there are none, `u32::MAX`.
    fn part(&mut self, part: Option<&[u8]>) {
        self.short.extend_from_slice(&part.map_or(u32::MAX, |bytes| bytes.len() as u32).to_le_bytes());
        match part.unwrap_or_default() {
            short if short.len() <= Self::SHORT => self.short.extend_from_slice(short),
            long => {
                self.end_row();
                self.all.update(long);
            }
        }
    }

    fn end_row(&mut self) {
        self.all.update(&self.short);
        self.short.clear();
    }
}

/// Values of a byte column side by side, so that they need no allocation each.
#[derive(Default)]
struct Values {
    buffer: Vec<u8>,
    /// `None`: null.
    ranges: Vec<Option<Range<usize>>>,
}

impl Values {
    fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes), ranges: Vec::new() }
    }

    fn push(&mut self, value: Option<&[u8]>) {
        let from = self.buffer.len();
        self.ranges.push(value.map(|value| {
            self.buffer.extend_from_slice(value);
            from..self.buffer.len()
        }));
    }
}

/// The large columns of a row group.
struct RawGroup {
    rows: Range<usize>,
    contexts: Values,
    changes: Values,
    frames: Values,
    sagas: Values,
    /// Bytes of these, of event ids, offsets and two times.
    raw: usize,
}

impl RawGroup {
    /// Takes rows from `at` on until the group is full.
    fn fill<'r>(
        order: &[&'r NewRow],
        at: usize,
        hash: &mut EntriesHash,
        sagas: &mut Vec<SagaRows>,
        running: &mut Contexts<'r>,
    ) -> Result<Self> {
        // About what each comes to: growing step by step would copy it all over several times.
        let [contexts, frames, sagas_after] = [GROUP_BYTES, GROUP_BYTES / 2, GROUP_BYTES / 4].map(Values::with_capacity);
        let changes = Values::default();
        let mut group = Self { rows: at..at, contexts, changes, frames, sagas: sagas_after, raw: 0 };
        for (number, row) in order.iter().enumerate().skip(at) {
            let before = number.checked_sub(1).map(|n| order[n]).filter(|before| before.saga_id() == row.saga_id());
            if group.raw >= if before.is_none() { GROUP_BYTES } else { GROUP_BYTES_MOST } {
                break;
            }
            group.push(row, before.is_none(), hash, running)?;
            group.rows.end = number + 1;
            let effective = row.entry.effective_time.0;
            match (before, sagas.last_mut()) {
                (Some(_), Some(saga)) => (saga.rows, saga.last_sequence) = (saga.rows + 1, row.entry.sequence.0),
                _ => sagas.push(SagaRows {
                    hash: row.saga_id().hash64(),
                    first_row: number as u32,
                    rows: 1,
                    first_effective: effective,
                    last_sequence: row.entry.sequence.0,
                }),
            }
        }
        Ok(group)
    }

    fn push<'r>(&mut self, row: &'r NewRow, is_first: bool, hash: &mut EntriesHash, running: &mut Contexts<'r>) -> Result<()> {
        let Entry { position, recorded_time, event, .. } = &*row.entry;
        let frame = frame::encode_entry(&row.entry);
        let (whole, change) = match running.next(row, is_first)? {
            StoredContext::Same => (None, None),
            StoredContext::Whole(context) => (Some(context), None),
            StoredContext::Change(change) => (None, Some(change)),
        };
        let (context, change) = (whole.as_ref().map(|whole| whole.as_str().as_bytes()), change.as_ref().map(String::as_bytes));
        hash.numbers([position.offset.0, recorded_time.0, event.occurred_at.map_or(i64::MIN, |at| at.0)]);
        let (saga_id, event_id) = (event.saga_id.as_str().as_bytes(), event.event_id.as_bytes());
        [Some(saga_id), Some(event_id), Some(frame.as_slice()), context, change].into_iter().for_each(|part| hash.part(part));
        hash.end_row();
        let saga = match (is_first, &row.saga) {
            (false, _) => None,
            (true, Some(saga)) => Some(saga),
            (true, None) => return Err(Error::bug("build segment: a saga's first row comes without the saga after it")),
        };
        self.raw += event.event_id.len() + 3 * size_of::<i64>() + frame.len();
        self.raw += context.or(change).map_or(0, <[u8]>::len) + saga.map_or(0, |frame| frame.len());
        self.contexts.push(context);
        self.changes.push(change);
        self.frames.push(Some(&frame));
        self.sagas.push(saga.map(|frame| &frame[..]));
        Ok(())
    }
}

fn write_columns(writer: &mut SerializedFileWriter<Vec<u8>>, rows: &[&NewRow], raw: RawGroup) -> Result<RowGroupMetaDataPtr> {
    let mut columns = Columns(writer.next_row_group().map_err(|e| bug("begin row group", e))?);
    let events = || rows.iter().map(|row| &row.entry.event);
    let entries = || rows.iter().map(|row| &row.entry);
    columns.texts(events().map(|e| Some(e.saga_id.as_str())))?;
    columns.texts(events().map(|e| Some(e.saga_name.as_str())))?;
    columns.numbers::<Int64Type>(entries().map(|e| Some(e.sequence.0 as i64)))?;
    columns.texts(events().map(|e| Some(e.kind.as_str())))?;
    columns.texts(events().map(|e| e.step.as_deref()))?;
    columns.texts(rows.iter().map(|row| Some(row.status.as_str())))?;
    columns.numbers::<Int64Type>(entries().map(|e| Some(e.effective_time.0)))?;
    columns.texts(events().map(|e| e.error.as_ref()?.code.as_deref()))?;
    columns.texts(events().map(|e| e.error.as_ref()?.kind.as_deref()))?;
    columns.texts(events().map(|e| Some(e.event_id.as_str())))?;
    columns.numbers::<Int64Type>(events().map(|e| e.step_index))?;
    columns.numbers::<Int64Type>(events().map(|e| e.attempt))?;
    columns.numbers::<Int64Type>(events().map(|e| Some(e.occurred_at?.0)))?;
    columns.numbers::<Int64Type>(entries().map(|e| Some(e.recorded_time.0)))?;
    columns.texts(entries().map(|e| Some(&*e.position.topic)))?;
    columns.numbers::<Int32Type>(entries().map(|e| Some(e.position.partition)))?;
    columns.numbers::<Int64Type>(entries().map(|e| Some(e.position.offset.0)))?;
    columns.numbers::<BoolType>(entries().map(|e| Some(e.snapshot)))?;
    let anomalies: Vec<Option<String>> = entries().map(|e| anomalies(&e.anomalies)).collect();
    columns.texts(anomalies.iter().map(|a| a.as_deref()))?;
    columns.texts(events().map(|e| e.error.as_ref()?.message.as_deref()))?;
    columns.texts(events().map(|e| e.tenant.as_deref()))?;
    columns.texts(events().map(|e| e.region.as_deref()))?;
    columns.texts(events().map(|e| e.saga_version.as_deref()))?;
    columns.values(raw.contexts)?;
    columns.values(raw.changes)?;
    columns.values(raw.frames)?;
    columns.values(raw.sagas)?;
    columns.0.close().map_err(|e| bug("end row group", e))
}

fn write_group(writer: &mut SerializedFileWriter<Vec<u8>>, rows: &[&NewRow], raw: RawGroup, first_row: usize) -> Result<Group> {
    let written = write_columns(writer, rows, raw)?;
    writer.flush().map_err(|e| bug("write row group", e))?;
    let mut end = written.column(0).byte_range().0;
    let start = end;
    let mut chunks = Vec::with_capacity(columns::COUNT);
    for column in written.columns() {
        let (from, len) = column.byte_range();
        if from != end {
            return Err(Error::bug("write row group: columns do not lie side by side"));
        }
        end = from + len;
        chunks.push(Chunk { len: len as u32, crc: crc32fast::hash(&writer.inner()[from as usize..end as usize]) });
    }
    let effective = || rows.iter().map(|row| row.entry.effective_time.0);
    let effective = (effective().min().unwrap_or_default(), effective().max().unwrap_or_default());
    Ok(Group { start, first_row: first_row as u32, rows: rows.len() as u32, effective, chunks })
}

fn anomalies(found: &[Anomaly]) -> Option<String> {
    (!found.is_empty()).then(|| found.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(","))
}

/// The columns of a row group, written one after the other in the order of the schema.
struct Columns<'a>(SerializedRowGroupWriter<'a, Vec<u8>>);

impl Columns<'_> {
    fn texts<'v>(&mut self, texts: impl Iterator<Item = Option<&'v str>>) -> Result<()> {
        let count = texts.size_hint().0;
        let mut values = Values { buffer: Vec::with_capacity(count * SHORT_TEXT), ranges: Vec::with_capacity(count) };
        texts.for_each(|text| values.push(text.map(str::as_bytes)));
        self.values(values)
    }

    fn values(&mut self, values: Values) -> Result<()> {
        let buffer = Bytes::from(values.buffer);
        self.numbers::<ByteArrayType>(values.ranges.into_iter().map(|range| Some(ByteArray::from(buffer.slice(range?)))))
    }

    fn numbers<T: DataType>(&mut self, values: impl Iterator<Item = Option<T::T>>) -> Result<()> {
        let count = values.size_hint().0;
        let (mut levels, mut present) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for value in values {
            levels.push(i16::from(value.is_some()));
            present.extend(value);
        }
        let next = self.0.next_column().map_err(|e| bug("begin column", e))?;
        let mut column = next.ok_or_else(|| Error::bug("write row group: more columns than the schema has"))?;
        let writer = column.typed::<T>();
        let optional = writer.get_descriptor().max_def_level() > 0;
        writer.write_batch(&present, optional.then_some(levels.as_slice()), None).map_err(|e| bug("write column", e))?;
        column.close().map_err(|e| bug("end column", e))
    }
}

/// Nothing here waits for anything outside: a failure is ours.
fn bug(action: &str, error: impl std::fmt::Display) -> Error {
    Error::bug(format!("{action}: {error}"))
}
