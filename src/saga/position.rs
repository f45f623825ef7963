//! Where a fact came from and when: numbers and names that stand side by side, each its own type, so that a
//! swapped pair does not compile.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A saga id: any string of 1 to 256 Unicode scalar values. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(pub Arc<str>);

impl SagaId {
    /// Most Unicode scalar values a saga id may have.
    pub const MAX_CHARS: usize = 256;

    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// For logs and messages.
    pub fn shown(&self) -> Shown<'_> {
        Shown(&self.0)
    }
    /// The beginning of SHA-256 of the UTF-8 bytes: the hash that cold indexes and Redis buckets use. It finds, it never
    /// decides. A faster hash would let anybody compute ids that meet a given one, each of which costs readers a request.
    pub fn hash64(&self) -> u64 {
        let digest = Sha256::digest(self.0.as_bytes());
        u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
    }
}

impl fmt::Debug for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<&str> for SagaId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// A text that others wrote, for logs and messages: nothing in it moves a terminal's cursor or ends a line, and it is
/// cut after [`Shown::MAX_CHARS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a>(pub &'a str);

impl Shown<'_> {
    pub const MAX_CHARS: usize = 64;
}
impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().take(Self::MAX_CHARS).try_for_each(|c| write!(f, "{}", c.escape_debug()))?;
        if self.0.chars().nth(Self::MAX_CHARS).is_some() {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// A Kafka topic's name. Cheap to clone.
pub type Topic = Arc<str>;

/// A Kafka offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    pub topic: Topic,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Topic>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// Topic, partition, offset of the record a fact came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub topic: Topic,
    pub partition: i32,
    pub offset: Offset,
}

impl Position {
    pub fn new(topic: impl Into<Topic>, partition: i32, offset: i64) -> Self {
        Self { topic: topic.into(), partition, offset: Offset(offset) }
    }
}
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// Counts a saga's entries from 1 in log order; not the event's own `sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct EntrySequence(pub u64);

impl EntrySequence {
    pub const FIRST: Self = Self(1);
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl fmt::Display for EntrySequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one incarnation of a topic: what marks and cold chains are kept for. A topic that was deleted
/// and created again gets the next incarnation, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    pub topic: Topic,
    pub incarnation: u32,
    pub partition: i32,
}

impl ChainId {
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}
impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}[{}]", self.topic, self.incarnation, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_shown_on_one_line_and_cut() {
        let shown = |text: &str| Shown(text).to_string();
        assert_eq!(shown("order-1"), "order-1");
        assert_eq!(shown("Größe/7 🚚"), "Größe/7 🚚");
        assert_eq!(shown("a\n2026 INFO forged\u{1b}[2J"), "a\\n2026 INFO forged\\u{1b}[2J");
        assert_eq!(shown("\u{202e}\u{2028}\0"), "\\u{202e}\\u{2028}\\0");
        assert_eq!(shown(&"é".repeat(10_000)), format!("{}... (20000 bytes)", "é".repeat(64)));
        assert_eq!(shown(&"x".repeat(64)), "x".repeat(64));
    }
}
