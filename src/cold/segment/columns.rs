//! The columns of a segment, their order, and how each is written.
//!
//! Key columns come first and those a look-up needs come last, so that each kind of read is one range of a row group.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, SchemaDescPtr, SchemaDescriptor, Type};

const SCHEMA: &str = "
message entry {
    required binary saga_id (STRING);
    required binary saga_name (STRING);
    required int64 sequence;
    required binary kind (STRING);
    optional binary step (STRING);
    required binary status (STRING);
    required int64 effective_time (TIMESTAMP(MICROS,true));
    optional binary error_code (STRING);
    optional binary error_type (STRING);
    required binary event_id (STRING);
    optional int64 step_index;
    optional int64 attempt;
    optional int64 occurred_at (TIMESTAMP(MICROS,true));
    required int64 recorded_time (TIMESTAMP(MICROS,true));
    required binary topic (STRING);
    required int32 partition;
    required int64 offset;
    required boolean snapshot;
    optional binary anomalies (STRING);
    optional binary error_message (STRING);
    optional binary tenant (STRING);
    optional binary region (STRING);
    optional binary version (STRING);
    optional binary context (STRING);
    optional binary context_change (STRING);
    required binary frame;
    optional binary saga;
}";

pub const SAGA_ID: usize = 0;
pub const SAGA_NAME: usize = 1;
pub const SEQUENCE: usize = 2;
pub const KIND: usize = 3;
pub const STEP: usize = 4;
pub const STATUS: usize = 5;
pub const EFFECTIVE_TIME: usize = 6;
pub const ERROR_CODE: usize = 7;
pub const ERROR_TYPE: usize = 8;
pub const EVENT_ID: usize = 9;
pub const OCCURRED_AT: usize = 12;
pub const RECORDED_TIME: usize = 13;
pub const OFFSET: usize = 16;
pub const ERROR_MESSAGE: usize = 19;
pub const CONTEXT: usize = 23;
pub const CONTEXT_CHANGE: usize = 24;
pub const FRAME: usize = 25;
pub const SAGA: usize = 26;
pub const COUNT: usize = 27;

/// What a search reads.
pub const KEYS: Range<usize> = SAGA_ID..ERROR_TYPE + 1;
/// What a look-up reads.
pub const LOOKUP: Range<usize> = EVENT_ID..COUNT;

/// Best effort of the Parquet writer; a look-up unpacks about one page of each column it reads.
const PAGE_BYTES: usize = 64 << 10;
/// Rows between looks at a page's size.
const BATCH_ROWS: usize = 16;
const LEVEL: i32 = 1;

pub fn root() -> Arc<Type> {
    static ROOT: OnceLock<Arc<Type>> = OnceLock::new();
    ROOT.get_or_init(|| Arc::new(parse_message_type(SCHEMA).expect("a constant that the tests parse"))).clone()
}

pub fn schema() -> SchemaDescPtr {
    static SCHEMA: OnceLock<SchemaDescPtr> = OnceLock::new();
    SCHEMA.get_or_init(|| Arc::new(SchemaDescriptor::new(root()))).clone()
}

/// Columns of texts that hardly repeat. Of the others, encoded as dictionaries and deltas, zstd takes little, and a context
/// of its own for each column of each row group costs more.
const COMPRESSED: [usize; 6] = [SAGA_ID, EVENT_ID, ERROR_MESSAGE, CONTEXT, FRAME, SAGA];

pub fn compression(column: usize) -> Compression {
    if COMPRESSED.contains(&column) {
        Compression::ZSTD(ZstdLevel::try_new(LEVEL).expect("a level that zstd has"))
    } else {
        Compression::UNCOMPRESSED
    }
}

pub fn properties() -> Arc<WriterProperties> {
    static PROPERTIES: OnceLock<Arc<WriterProperties>> = OnceLock::new();
    PROPERTIES.get_or_init(|| Arc::new(new_properties())).clone()
}

fn new_properties() -> WriterProperties {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("resaga".to_owned())
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(BATCH_ROWS)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None);
    for plain in ["event_id", "error_message", "context", "context_change", "frame", "saga"] {
        builder = builder.set_column_dictionary_enabled(path(plain), false);
    }
    for column in COMPRESSED {
        builder = builder.set_column_compression(schema().column(column).path().clone(), compression(column));
    }
    for delta in ["sequence", "effective_time", "occurred_at", "recorded_time", "offset"] {
        builder = builder
            .set_column_dictionary_enabled(path(delta), false)
            .set_column_encoding(path(delta), Encoding::DELTA_BINARY_PACKED);
    }
    for key in ["saga_id", "saga_name", "kind", "step", "status", "effective_time", "error_code", "error_type"] {
        builder = builder.set_column_statistics_enabled(path(key), EnabledStatistics::Chunk);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_columns_are_their_places_in_the_schema() {
        let schema = schema();
        let name = |at: usize| schema.column(at).name().to_owned();
        assert_eq!(schema.num_columns(), COUNT);
        let named = [SAGA_ID, SAGA_NAME, SEQUENCE, KIND, STEP, STATUS, EFFECTIVE_TIME, ERROR_CODE, ERROR_TYPE].map(name);
        let expected =
            ["saga_id", "saga_name", "sequence", "kind", "step", "status", "effective_time", "error_code", "error_type"];
        assert_eq!(named, expected);
        assert_eq!([EVENT_ID, ERROR_MESSAGE].map(name), ["event_id", "error_message"]);
        assert_eq!([OCCURRED_AT, RECORDED_TIME, OFFSET].map(name), ["occurred_at", "recorded_time", "offset"]);
        let last = [CONTEXT, CONTEXT_CHANGE, FRAME, SAGA].map(name);
        assert_eq!(last, ["context", "context_change", "frame", "saga"]);
    }
}
