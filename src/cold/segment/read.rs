//! Reads rows of a segment from ranges of its bytes; unpacks no more pages than the rows need.
//!
//! Every column chunk is checked against the CRC-32 in the index before it is unpacked.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::contexts::read_change;
use super::index::{Group, SagaRows, SegmentIndex};
use super::{RowSummary, columns};
use crate::error::{Error, Result};
use crate::saga::event::{ContextChange, Kind};
use crate::saga::json::Json;
use crate::saga::position::{ChainId, EntrySequence, Offset, Position, SagaId};
use crate::saga::state::Status;
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;
use crate::wire::frame::{self, EntryColumns};

/// A range of an object's bytes.
pub struct ObjectBytes {
    pub start: u64,
    pub bytes: Bytes,
}

impl ObjectBytes {
    fn slice(&self, range: Range<u64>) -> Result<Bytes> {
        let inside = range.start >= self.start && range.end <= self.start + self.bytes.len() as u64;
        if !inside {
            return Err(Error::corrupt("read segment: the object is shorter than its index says"));
        }
        Ok(self.bytes.slice((range.start - self.start) as usize..(range.end - self.start) as usize))
    }
}

/// The entries of one saga, oldest first; `part` holds [`SegmentIndex::lookup_bytes`].
pub fn entries(index: &SegmentIndex, rows: &SagaRows, part: &ObjectBytes) -> Result<Vec<StoredEntry>> {
    let mut found: Vec<StoredEntry> = Vec::with_capacity(rows.rows as usize);
    // `None` after a change: nobody has folded it yet.
    let mut context: Option<Json> = None;
    let ChainId { topic, partition, .. } = &index.info.chain;
    for group in index.groups_of(rows) {
        let from = rows.first_row.max(group.first_row);
        let to = (rows.first_row + rows.rows).min(group.first_row + group.rows);
        let wanted = from - group.first_row..to - group.first_row;
        let texts = |column| column_values::<ByteArrayType>(group, column, part, wanted.clone());
        let numbers = |column| column_values::<Int64Type>(group, column, part, wanted.clone());
        let (contexts, changes) = (texts(columns::CONTEXT)?, texts(columns::CONTEXT_CHANGE)?);
        let (frames, event_ids) = (texts(columns::FRAME)?, texts(columns::EVENT_ID)?);
        let (occurred, recorded) = (numbers(columns::OCCURRED_AT)?, numbers(columns::RECORDED_TIME)?);
        let offsets = numbers(columns::OFFSET)?;
        for row in 0..wanted.len() {
            let mut change = ContextChange::None;
            if let Some(text) = &contexts[row] {
                context = Some(Json::from_valid(utf8(text)?));
            } else if let Some(text) = &changes[row] {
                change = read_change(utf8(text)?)?;
                context = None;
            }
            let first = if found.is_empty() {
                let after = context.clone();
                let after = after.ok_or_else(|| Error::corrupt("read segment: a saga's first row has no context"))?;
                Some(Box::new(first_saga(group, from, part, after)?))
            } else {
                None
            };
            let saga_id = match (&first, found.first()) {
                (Some(saga), _) => saga.state.saga_id.clone(),
                (None, first) => need(first)?.entry.event.saga_id.clone(),
            };
            let columns = EntryColumns {
                saga_id,
                event_id: needed(&event_ids[row])?.to_owned(),
                position: Position { topic: topic.clone(), partition: *partition, offset: Offset(need(offsets[row])?) },
                occurred_at: occurred[row].map(Micros),
                recorded_time: Micros(need(recorded[row])?),
            };
            let (mut entry, changed) = frame::decode_entry(columns, need(frames[row].as_ref())?.data())?;
            if changed {
                // Neither: the event changed it to what it was.
                entry.event.context = context.clone().map_or(change, ContextChange::Full);
            }
            found.push(StoredEntry { entry, saga: first });
        }
    }
    Ok(found)
}

fn first_saga(group: &Group, row: u32, part: &ObjectBytes, context: Json) -> Result<crate::saga::fold::Saga> {
    let at = row - group.first_row;
    let stored = column_values::<ByteArrayType>(group, columns::SAGA, part, at..at + 1)?.pop().flatten();
    let stored = stored.ok_or_else(|| Error::corrupt("read segment: a saga's first row has no saga"))?;
    let mut saga = frame::decode_saga(stored.data())?;
    saga.state.context = context;
    Ok(saga)
}

/// Rows of a group with since <= effective time < until; `part` holds the key columns of the group.
pub fn summaries(group: &Group, part: &ObjectBytes, since: Micros, until: Micros) -> Result<Vec<RowSummary>> {
    let all = 0..group.rows;
    let texts = |column| column_values::<ByteArrayType>(group, column, part, all.clone());
    let numbers = |column| column_values::<Int64Type>(group, column, part, all.clone());
    let (ids, names, sequences) = (texts(columns::SAGA_ID)?, texts(columns::SAGA_NAME)?, numbers(columns::SEQUENCE)?);
    let (kinds, steps, statuses) = (texts(columns::KIND)?, texts(columns::STEP)?, texts(columns::STATUS)?);
    let (times, codes, types) = (numbers(columns::EFFECTIVE_TIME)?, texts(columns::ERROR_CODE)?, texts(columns::ERROR_TYPE)?);
    let mut found = Vec::new();
    for row in 0..group.rows as usize {
        let effective_time = Micros(need(times[row])?);
        if effective_time < since || effective_time >= until {
            continue;
        }
        found.push(RowSummary {
            saga_id: SagaId::new(needed(&ids[row])?),
            saga_name: needed(&names[row])?.to_owned(),
            sequence: EntrySequence(need(sequences[row])? as u64),
            kind: need(Kind::parse(needed(&kinds[row])?))?,
            step: optional(&steps[row])?,
            error_code: optional(&codes[row])?,
            error_type: optional(&types[row])?,
            effective_time,
            status: need(Status::parse(needed(&statuses[row])?))?,
        });
    }
    Ok(found)
}

fn need<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::corrupt("read segment: a row lacks a value"))
}
fn needed(value: &Option<ByteArray>) -> Result<&str> {
    utf8(need(value.as_ref())?)
}
fn optional(value: &Option<ByteArray>) -> Result<Option<String>> {
    value.as_ref().map(|v| utf8(v).map(str::to_owned)).transpose()
}
fn utf8(value: &ByteArray) -> Result<&str> {
    std::str::from_utf8(value.data()).map_err(|e| Error::corrupt(format!("read segment: a text: {e}")))
}

/// Values of these rows (counted in the group) of one column.
fn column_values<T: DataType>(group: &Group, column: usize, part: &ObjectBytes, rows: Range<u32>) -> Result<Vec<Option<T::T>>> {
    let chunk = part.slice(group.bytes_of(column..column + 1))?;
    if crc32fast::hash(&chunk) != group.chunks[column].crc {
        return Err(Error::corrupt(format!(
            "read segment: the bytes of column {column} do not have the checksum that the index says: the object is damaged"
        )));
    }
    let descriptor = columns::schema().column(column);
    // Places are relative: the chunk is all that the page reader sees.
    let metadata = ColumnChunkMetaData::builder(descriptor.clone())
        .set_compression(columns::compression(column))
        .set_num_values(i64::from(group.rows))
        .set_data_page_offset(0)
        .set_total_compressed_size(chunk.len() as i64)
        .build()
        .map_err(corrupt)?;
    let pages = SerializedPageReader::new(Arc::new(chunk), &metadata, group.rows as usize, None).map_err(corrupt)?;
    let is_optional = descriptor.max_def_level() > 0;
    let mut reader = ColumnReaderImpl::<T>::new(descriptor, Box::new(pages));
    reader.skip_records(rows.start as usize).map_err(corrupt)?;
    let wanted = rows.len();
    let (mut levels, mut values) = (Vec::with_capacity(wanted), Vec::with_capacity(wanted));
    let mut got = 0;
    while got < wanted {
        let (records, _, _) =
            reader.read_records(wanted - got, is_optional.then_some(&mut levels), None, &mut values).map_err(corrupt)?;
        if records == 0 {
            return Err(Error::corrupt(format!("read segment: column {column} has too few rows")));
        }
        got += records;
    }
    if !is_optional {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect())
}

fn corrupt(error: parquet::errors::ParquetError) -> Error {
    Error::corrupt(format!("read segment: {error}"))
}
