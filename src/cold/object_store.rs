//! What the cold store needs of an object store. Two real ones: S3 and a directory; one contract suite runs on both.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};

/// Small text pairs kept with an object (ASCII names and values).
pub type Metadata = Vec<(String, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Created,
    /// An object of that key was there; nothing changed.
    Exists,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub len: u64,
    pub metadata: Metadata,
}

/// A part of an object, with what HEAD would have told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPart {
    pub bytes: Bytes,
    /// First byte's place in the object.
    pub start: u64,
    /// Length of the whole object.
    pub len: u64,
    pub metadata: Metadata,
}

/// Keys are `/`-separated names of letters, digits, `.`, `_`, `-`, `=` and `%`; never `//`, `.` or `..`.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Creates the object if no object has the key (`If-None-Match: *`), as one atomic step. One try, with a time-out;
    /// a 409 is `Unavailable`.
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put>;

    /// `None`: no such object.
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>>;

    /// Bytes [start, end) of the object.
    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>>;

    /// The last `len` bytes, or all of a shorter object.
    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>>;

    /// Keys under `prefix` in byte order, after `after` if given; at most `limit`. Where a folder's name begins with
    /// another's (`a/` and `a-b/`) some servers order by folder. For `doctor` and compaction; never on a read.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>>;

    async fn delete(&self, key: &str) -> Result<()>;
}

/// Refuses a key that some store would take for another one.
pub fn check_key(key: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-=%".contains(&c);
    let name = |name: &str| !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain);
    if key.split('/').all(name) { Ok(()) } else { Err(Error::bug("use object key: not a plain path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_keys() {
        for key in ["a", "l0/t_1.v-2/0/00.parquet", "a=b/%41/..x/.y"] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in ["", "/a", "a/", "a//b", "./a", "a/..", "a b", "a\\b", "é"] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }
}
