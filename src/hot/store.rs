//! What a hot store takes and gives: batches of members and facts, reads, marks and holds.
//!
//! Knows keys of sagas, scores and opaque members; must not know what a member means (`wire::frame`) or which store it is.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::facts::{ActivityFact, FailureFact, IndexQuery, IndexRead};
use super::index_bucket::IndexBucket;
use super::mark::{Mark, MarkMove, MarkOutcome, Marks};
use super::token::{Token, Written};
use crate::error::{Error, Result};
use crate::saga::installation::{Installation, OF_ANOTHER};
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId};
use crate::saga::time::Micros;

/// One member of a saga's sorted set. `bytes` begin with the entry sequence (8 bytes, big-endian), so equal scores
/// sort by sequence. Written again by one owner it is the same and changes nothing; another owner may add it with or
/// without its saga, and readers take the two for one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The score: microseconds. A store may round times outside of +-2^53 us (the years 1684 to 2255); reads with a
    /// bound out there give a member too many rather than one too few.
    pub effective_time: Micros,
    pub bytes: Bytes,
}

/// New members of one saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaWrite {
    pub saga: SagaId,
    pub members: Vec<Member>,
    /// The key may carry an expiry from when all its entries were durable: remove it first.
    pub persist: bool,
}

/// Facts in this index bucket are not durable yet: it is not to be dropped before cold has the chain up to `until`. Only for
/// index buckets that are old enough to be dropped soon.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hold {
    /// Of the index bucket.
    pub bucket: u16,
    pub index_bucket: IndexBucket,
    pub chain: ChainId,
    /// Exclusive.
    pub until: Offset,
}

/// Everything one batch writes; order inside does not matter, each part is idempotent.
#[derive(Debug, Clone, Default)]
pub struct HotBatch {
    pub sagas: Vec<SagaWrite>,
    pub failures: Vec<FailureFact>,
    pub activity: Vec<ActivityFact>,
    /// There before the facts are.
    pub holds: Vec<Hold>,
}

impl HotBatch {
    pub fn is_empty(&self) -> bool {
        self.sagas.is_empty() && self.failures.is_empty() && self.activity.is_empty() && self.holds.is_empty()
    }

    /// Keeps what belongs to buckets that are wanted.
    pub fn retain(&mut self, bucket: impl Fn(&SagaId) -> u16, wanted: impl Fn(u16) -> bool) {
        self.sagas.retain(|write| wanted(bucket(&write.saga)));
        self.failures.retain(|fact| wanted(bucket(&fact.saga)));
        self.activity.retain(|fact| wanted(bucket(&fact.saga)));
        self.holds.retain(|hold| wanted(hold.bucket));
    }
}

/// Durable members of a saga that are kept at least; the store drops older ones once there are twice as many.
pub const KEPT: u64 = 1_024;

/// A saga with entries that are durable in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableSaga {
    pub saga: SagaId,
    /// Of the newest that are.
    pub sequence: EntrySequence,
}

/// A read of one saga: its newest members with effective time <= `upto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotQuery {
    pub saga: SagaId,
    /// `Micros::MAX`: all.
    pub upto: Micros,
    pub limit: usize,
    /// Whose marks the answer must have, where they are there; it may have others. Empty: all of the saga's bucket.
    pub marks_of: Vec<ChainId>,
}

impl HotQuery {
    /// With all marks.
    pub fn new(saga: SagaId, upto: Micros, limit: usize) -> Self {
        Self { saga, upto, limit, marks_of: Vec::new() }
    }
}

/// Members and, read in the same round trip, marks of the saga's bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HotRead {
    /// Newest first. Equal times are in the order of the bytes, the greatest first.
    pub members: Vec<Member>,
    /// As they were when the members were read, or before.
    pub marks: Marks,
}

/// What `doctor` looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HotHealth {
    /// `maxmemory-policy`, where the store has one.
    pub eviction_policy: Option<String>,
    pub used_bytes: Option<u64>,
    /// What must be changed before this store may be used, with the remedy.
    pub problems: Vec<String>,
    /// What makes it better, with the reason.
    pub hints: Vec<String>,
}

#[async_trait]
pub trait HotStore: Send + Sync {
    /// 1 on a single server, 16 on a cluster.
    fn buckets(&self) -> u16;

    /// The bucket of a saga's key, its facts and the mark that vouches for them.
    fn bucket(&self, saga: &SagaId) -> u16 {
        bucket_of(saga, self.buckets())
    }

    /// Adds members and facts, and after them the token. All or an error; after an error any part may be there.
    async fn write(&self, batch: &HotBatch, token: Token) -> Result<Written>;

    /// Compares and sets each mark on its own, where the tokens of what was written to its bucket stand, and takes these
    /// away; one script per bucket.
    async fn move_marks(&self, moves: &[MarkMove], written: &Written) -> Result<Vec<MarkOutcome>>;

    /// All marks of a bucket.
    async fn marks(&self, bucket: u16) -> Result<Vec<(ChainId, Mark)>>;

    /// One pipelined round trip for all queries; answers in their order.
    async fn read(&self, queries: &[HotQuery]) -> Result<Vec<HotRead>>;

    /// Lets the keys of these sagas expire after the store's ttl, those that hold nothing newer than what is durable: who
    /// comes late meets a key that another owner goes on with. Drops from each key what is durable and further back than
    /// [`KEPT`], now and then. Proved as what was written before: gives that and its own pieces.
    async fn settle(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written>;

    /// Removes the keys of these sagas: what is not durable of them never happened, the rest is in S3.
    async fn forget(&self, sagas: &[SagaId]) -> Result<()>;

    /// At most `limit` facts, newest first.
    async fn failures(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<FailureFact>>;

    /// At most `limit` facts, newest minute first.
    async fn activity(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<ActivityFact>>;

    /// Drops the facts of minutes before this one (since the Unix epoch), whole, except for index buckets that are held; says so
    /// in `kept_from` first. A `kept_from` beyond minute `latest` is the work of a wrong clock: it is put right, and the marks,
    /// which vouch for what was dropped with it, are dropped too, so that owners start over.
    async fn drop_indexes_before(&self, minute: i64, latest: i64) -> Result<()>;

    /// What is held in a bucket of minutes before this one, oldest minutes first: at most `limit`, after `skip` others.
    async fn holds(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>>;

    /// Holds index buckets that were written before.
    async fn hold(&self, holds: &[Hold]) -> Result<()>;

    /// Holds these no longer.
    async fn release(&self, holds: &[Hold]) -> Result<()>;

    /// Most bytes of one member; a larger one cannot be written.
    fn max_member(&self) -> usize {
        usize::MAX
    }

    /// Does it take writes now? Full or read-only: `Unavailable`.
    async fn takes_writes(&self) -> Result<()>;

    /// Whose keys these are; `None`: nobody's, or a store that only this process has.
    async fn owner(&self) -> Result<Option<Installation>> {
        Ok(None)
    }

    /// Makes them this installation's if they are nobody's (a store that was wiped, too); gives whose they are.
    async fn claim(&self, mine: &Installation) -> Result<Installation> {
        Ok(mine.clone())
    }

    /// Is it there, and set up so that nothing S3 lacks can be evicted?
    async fn health(&self) -> Result<HotHealth>;
}

/// All marks of each bucket. A hot store that does not answer is as good as one without marks: the compare-and-set finds what
/// there really is, and readers ask cold.
pub async fn marks_of_all_buckets(hot: &dyn HotStore) -> Result<Vec<HashMap<ChainId, Mark>>> {
    let mut marks = Vec::with_capacity(usize::from(hot.buckets()));
    for bucket in 0..hot.buckets() {
        let found = match hot.marks(bucket).await {
            Err(error) if error.is_unavailable() => Vec::new(),
            other => other?,
        };
        marks.push(found.into_iter().collect());
    }
    Ok(marks)
}

/// `Invalid` [`OF_ANOTHER`]: the keys are another installation's.
pub fn check_owner(owner: &Installation, mine: &Installation) -> Result<()> {
    if owner == mine {
        return Ok(());
    }
    let message = format!(
        "hot store: its keys belong to another installation ({owner}), this is {mine}; give this one a prefix of its own \
         (hot.url ...?prefix=), or empty the store if the other is gone"
    );
    Err(Error::invalid(OF_ANOTHER, message))
}

/// The bucket of a saga, of this many buckets.
pub fn bucket_of(saga: &SagaId, buckets: u16) -> u16 {
    if buckets <= 1 { 0 } else { (saga.hash64() % u64::from(buckets)) as u16 }
}
