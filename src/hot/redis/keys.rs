//! The one place for names of keys in Redis (layout 2).
//!
//! Every key begins with the prefix, the layout version and, when there are several buckets, the bucket as a hash tag,
//! so that a bucket lies in one slot. A saga id stands last and raw: it can hold any characters. Knows names only.

use crate::error::{Error, Result};
use crate::hot::index_bucket::IndexBucket;
use crate::hot::store::Hold;
use crate::hot::token::Token;
use crate::saga::position::{ChainId, Offset, SagaId};

/// Changes when what is stored under a key changes its meaning; keys of another version are never read.
const LAYOUT: u32 = 2;

/// The member of `floor`: a sorted set, because a score can be raised without a script and never lowered (`ZADD GT`).
pub const FLOOR: &str = "minute";

pub const DEFAULT_PREFIX: &str = "resaga";
const MAX_PREFIX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisKeys {
    /// Per bucket: what its keys begin with.
    heads: Vec<String>,
    owner: String,
}

impl RedisKeys {
    /// `prefix`: 1 to 64 letters, digits, `.`, `_`, `-`: no brace of it can become the hash tag.
    pub fn new(prefix: &str, buckets: u16) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(fits) {
            return Err(Error::invalid("config_invalid", "hot.url: prefix must be 1 to 64 letters, digits, '.', '_' or '-'"));
        }
        let heads = match buckets {
            0 | 1 => vec![format!("{prefix}:{LAYOUT}:")],
            _ => (0..buckets).map(|bucket| format!("{prefix}:{LAYOUT}:{{{bucket}}}:")).collect(),
        };
        Ok(Self { heads, owner: format!("{prefix}:owner") })
    }

    pub fn buckets(&self) -> u16 {
        self.heads.len() as u16
    }

    fn head(&self, bucket: u16) -> &str {
        &self.heads[usize::from(bucket) % self.heads.len()]
    }

    /// String: the installation that writes under the prefix, in whatever layout.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Sorted set: the members of a saga by effective time.
    pub fn saga(&self, bucket: u16, saga: &SagaId) -> String {
        [self.head(bucket), "s:", saga.as_str()].concat()
    }

    /// Hash: the marks of a bucket; field [`mark_field`].
    pub fn marks(&self, bucket: u16) -> String {
        format!("{}marks", self.head(bucket))
    }

    /// Hash: what was written and no mark has moved over yet; field [`token_field`], value the write's number.
    pub fn tokens(&self, bucket: u16) -> String {
        format!("{}tokens", self.head(bucket))
    }

    /// Sorted set of the one member [`FLOOR`]: index buckets of minutes before its score were dropped.
    pub fn floor(&self, bucket: u16) -> String {
        format!("{}floor", self.head(bucket))
    }

    /// Sorted set: what is held ([`hold_member`]), by the minute of the index bucket.
    pub fn held(&self, bucket: u16) -> String {
        format!("{}held", self.head(bucket))
    }

    /// String: written now and then, to learn whether writes are taken.
    pub fn probe(&self, bucket: u16) -> String {
        format!("{}probe", self.head(bucket))
    }

    /// Sorted set: the days that have a index bucket, by day.
    pub fn days(&self, bucket: u16) -> String {
        format!("{}days", self.head(bucket))
    }

    /// Sorted set: the labels of the index buckets of a day, by minute.
    pub fn day(&self, bucket: u16, day: i64) -> String {
        format!("{}day:{day}", self.head(bucket))
    }

    /// Sorted set: the facts of one index bucket.
    pub fn index_bucket(&self, bucket: u16, index_bucket: &IndexBucket) -> String {
        format!("{}{}", self.head(bucket), index_bucket.label())
    }
}

/// `topic/incarnation/partition/until/label`.
pub fn hold_member(hold: &Hold) -> String {
    format!("{}/{}/{}", mark_field(&hold.chain), hold.until, hold.index_bucket.label())
}

pub fn parse_hold(bucket: u16, member: &str) -> Option<Hold> {
    let mut parts = member.splitn(5, '/');
    let mut part = || parts.next();
    let (topic, incarnation, partition, until, label) = (part()?, part()?, part()?, part()?, part()?);
    let chain = ChainId { topic: topic.into(), incarnation: incarnation.parse().ok()?, partition: partition.parse().ok()? };
    Some(Hold { bucket, index_bucket: IndexBucket::parse(label)?, chain, until: Offset(until.parse().ok()?) })
}

/// `topic/incarnation/partition`: topic names have no `/`.
pub fn mark_field(chain: &ChainId) -> String {
    format!("{}/{}/{}", chain.topic, chain.incarnation, chain.partition)
}

/// `writer.piece`: 16 hexadecimal digits, then from 0.
pub fn token_field(token: Token, piece: u32) -> String {
    format!("{:016x}.{piece}", token.writer)
}

pub fn parse_mark_field(field: &str) -> Option<ChainId> {
    let mut parts = field.split('/');
    let chain = ChainId {
        topic: parts.next().filter(|topic| !topic.is_empty())?.into(),
        incarnation: parts.next()?.parse().ok()?,
        partition: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_bucket_share_its_hash_tag_and_one_bucket_has_none() {
        let saga = SagaId::from("{9}:\0..🚚");
        assert_eq!(RedisKeys::new("resaga", 1).unwrap().saga(0, &saga), "resaga:2:s:{9}:\0..🚚");
        let keys = RedisKeys::new("eu-1", 16).unwrap();
        assert_eq!(keys.buckets(), 16);
        assert_eq!(keys.saga(7, &saga), "eu-1:2:{7}:s:{9}:\0..🚚");
        assert_eq!(keys.marks(15), "eu-1:2:{15}:marks");
        assert_eq!(keys.floor(0), "eu-1:2:{0}:floor");
        assert_eq!(keys.days(0), "eu-1:2:{0}:days");
        assert_eq!(keys.day(0, -3), "eu-1:2:{0}:day:-3");
        assert_eq!(keys.owner(), "eu-1:owner");
    }

    #[test]
    fn a_prefix_that_could_hold_a_hash_tag_is_refused() {
        for prefix in ["", "{a}", "a:b", "a b", &"x".repeat(65)] {
            assert!(RedisKeys::new(prefix, 1).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_hold_reads_back_and_anything_else_does_not() {
        let chain = ChainId { topic: "saga.events.v1".into(), incarnation: 2, partition: 11 };
        let index_bucket = IndexBucket::parse("f:-7:5:a/b:c:d/e").expect("a label");
        let hold = Hold { bucket: 3, index_bucket, chain, until: Offset(9) };
        assert_eq!(hold_member(&hold), "saga.events.v1/2/11/9/f:-7:5:a/b:c:d/e");
        assert_eq!(parse_hold(3, &hold_member(&hold)), Some(hold));
        for member in ["", "t/0/0/9", "t/0/0/x/f:1:1:a:", "t/0/0/9/f:x"] {
            assert_eq!(parse_hold(3, member), None, "{member}");
        }
    }

    #[test]
    fn a_mark_field_reads_back_and_anything_else_does_not() {
        let chain = ChainId { topic: "saga.events.v1".into(), incarnation: 2, partition: 11 };
        assert_eq!(mark_field(&chain), "saga.events.v1/2/11");
        assert_eq!(parse_mark_field("saga.events.v1/2/11"), Some(chain));
        for field in ["", "a", "a/1", "a/1/2/3", "a/-1/2", "/1/2", "a/1/x"] {
            assert_eq!(parse_mark_field(field), None, "{field}");
        }
    }
}
