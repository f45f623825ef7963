//! Records as the roles see them: owned bytes, no vendor type.

use bytes::Bytes;

use super::broker_clock::Stamp;
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::time::Micros;

/// A record read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// Kafka's timestamp (milliseconds there).
    pub timestamp: Micros,
    /// The broker gave the timestamp (LogAppendTime), not the producer.
    pub by_broker: bool,
    /// `None`: null key.
    pub key: Option<Bytes>,
    /// `None`: null value.
    pub value: Option<Bytes>,
    pub headers: Headers,
}

pub type Headers = Vec<(String, Option<Bytes>)>;

impl Record {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum::<usize>()
    }
}

/// Records of one partition in offset order (offsets may have holes: control records, compaction).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecords {
    pub partition: TopicPartition,
    pub records: Vec<Record>,
    /// The consumer's position after them; passes control records when the end was reached.
    pub position: Offset,
    /// Epoch of the leader that gave the last of them; `None`: the broker does not tell.
    pub leader_epoch: Option<i32>,
    /// Of the last of them.
    pub stamp: Stamp,
}

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    pub topic: String,
    /// `None`: the partitioner decides (murmur2 of the key).
    pub partition: Option<i32>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// Milliseconds are what Kafka keeps; `None`: now.
    pub timestamp: Option<Micros>,
}

/// What a record's timestamp says, in milliseconds, within the times that can be written (and searched for): producers may put any
/// number there.
pub(super) fn recorded(millis: i64) -> Micros {
    Micros::from_millis(millis.max(0)).min(Micros::LAST_WRITABLE)
}

/// Copies all parts into one buffer and returns slices of it.
pub(super) fn one_allocation(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Vec<(String, Option<&[u8]>)>,
) -> (Option<Bytes>, Option<Bytes>, Headers) {
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let size = length(key) + length(value) + headers.iter().map(|(_, value)| length(*value)).sum::<usize>();
    let mut buffer = Vec::with_capacity(size);
    for part in [key, value].into_iter().chain(headers.iter().map(|(_, value)| *value)).flatten() {
        buffer.extend_from_slice(part);
    }
    let buffer = Bytes::from(buffer);
    let mut from = 0;
    let mut take = |part: Option<&[u8]>| {
        part.map(|part| {
            let slice = buffer.slice(from..from + part.len());
            from += part.len();
            slice
        })
    };
    let (key, value) = (take(key), take(value));
    let headers = headers.into_iter().map(|(name, value)| (name, take(value))).collect();
    (key, value, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_of_any_number_is_a_time_that_can_be_written() {
        assert_eq!(recorded(1_768_039_200_123), Micros(1_768_039_200_123_000));
        assert_eq!(recorded(-1), Micros(0));
        for nanoseconds_or_worse in [1_768_039_200_123_000_000, i64::MAX] {
            assert_eq!(recorded(nanoseconds_or_worse), Micros::LAST_WRITABLE);
        }
    }

    #[test]
    fn key_value_and_headers_share_one_allocation_and_null_is_not_empty() {
        let (key, value, headers) =
            one_allocation(Some(b"k"), None, vec![("a".into(), Some(b"xy")), ("b".into(), None), ("c".into(), Some(b""))]);
        assert_eq!(key.as_deref(), Some(&b"k"[..]));
        assert_eq!(value, None);
        let expected = [("a".to_owned(), Some(Bytes::from_static(b"xy"))), ("b".into(), None), ("c".into(), Some(Bytes::new()))];
        assert_eq!(headers, expected);
    }
}
