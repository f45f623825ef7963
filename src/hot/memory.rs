//! The hot store in memory: for `demo` and for tests; the model that the contract suite holds Redis against.
//!
//! Knows the same order, windows and expiry as Redis does; time since the start comes from the clock it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::facts::{ActivityFact, FailureFact, IndexQuery, IndexRead};
use super::index_bucket::{self, Index, IndexBucket};
use super::mark::{Mark, MarkMove, MarkOutcome, Marks};
use super::store::{DurableSaga, Hold, HotBatch, HotHealth, HotQuery, HotRead, HotStore, KEPT, Member};
use super::token::{Token, Written};
use crate::error::Result;
use crate::saga::installation::Installation;
use crate::saga::position::{ChainId, SagaId};
use crate::saga::time::Micros;

/// Time since some start; never goes back.
pub type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

pub struct MemoryHot {
    ttl: Duration,
    clock: Clock,
    state: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    sagas: BTreeMap<SagaId, SagaKey>,
    marks: BTreeMap<ChainId, Mark>,
    /// Of each writer: the number of its last write, until a mark is moved by it.
    tokens: BTreeMap<u64, u64>,
    /// The store's order: by time, then by bytes.
    index_buckets: BTreeMap<IndexBucket, BTreeSet<(Micros, Vec<u8>)>>,
    /// Index buckets of minutes before this one were dropped.
    floor: Option<i64>,
    holds: BTreeSet<Hold>,
    owner: Option<Installation>,
}

#[derive(Default)]
struct SagaKey {
    members: BTreeSet<(Micros, Bytes)>,
    expires: Option<Duration>,
}

impl MemoryHot {
    pub fn new(ttl: Duration, clock: Clock) -> Self {
        Self { ttl, clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        // Every change below is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key, unless its time is over.
    fn alive<'a>(&self, state: &'a MemoryState, saga: &SagaId) -> Option<&'a SagaKey> {
        state.sagas.get(saga).filter(|key| key.expires.is_none_or(|at| (self.clock)() < at))
    }
}

impl MemoryState {
    fn marks(&self) -> Marks {
        self.marks.iter().map(|(chain, mark)| (chain.clone(), *mark)).collect()
    }

    fn read_index<F>(
        &self,
        index: Index,
        query: &IndexQuery,
        limit: usize,
        decode: impl Fn(&IndexBucket, Micros, &[u8]) -> Result<F>,
    ) -> Result<Vec<F>> {
        let Some((first, last)) = index_bucket::minutes(query) else { return Ok(Vec::new()) };
        let bound = |minute| IndexBucket { minute, index: Index::Failures, saga_name: String::new(), step: String::new() };
        let mut found = Vec::new();
        let mut minute = None;
        for (index_bucket, facts) in self.index_buckets.range(bound(first)..bound(last.saturating_add(1))).rev() {
            if found.len() > limit && minute != Some(index_bucket.minute) {
                break;
            }
            minute = Some(index_bucket.minute);
            if index_bucket.fits(index, query) {
                let inside = facts.iter().filter(|(at, _)| index == Index::Activity || (query.since..query.until).contains(at));
                for (at, bytes) in inside {
                    found.push(decode(index_bucket, *at, bytes)?);
                }
            }
        }
        Ok(found)
    }

    fn answer<F>(&self, mut facts: Vec<F>, limit: usize) -> IndexRead<F> {
        let more = facts.len() > limit;
        facts.truncate(limit);
        let marks = self.marks.iter().map(|(chain, mark)| (0, chain.clone(), *mark)).collect();
        IndexRead { facts, marks, kept_from: self.floor.map_or(Micros::MIN, index_bucket::minute_start), more }
    }
}

#[async_trait]
impl HotStore for MemoryHot {
    fn buckets(&self) -> u16 {
        1
    }

    async fn write(&self, batch: &HotBatch, token: Token) -> Result<Written> {
        let mut state = self.state();
        for write in &batch.sagas {
            if self.alive(&state, &write.saga).is_none() {
                state.sagas.remove(&write.saga);
            }
            if write.members.is_empty() && !state.sagas.contains_key(&write.saga) {
                continue;
            }
            let key = state.sagas.entry(write.saga.clone()).or_default();
            if write.persist {
                key.expires = None;
            }
            key.members.extend(write.members.iter().map(|member| (member.effective_time, member.bytes.clone())));
        }
        state.holds.extend(batch.holds.iter().cloned());
        for fact in &batch.failures {
            let facts = state.index_buckets.entry(IndexBucket::of_failure(fact)).or_default();
            facts.insert((fact.at, index_bucket::encode_failure(fact)));
        }
        for fact in &batch.activity {
            let facts = state.index_buckets.entry(IndexBucket::of_activity(fact)).or_default();
            facts.insert((Micros(0), fact.saga.as_str().as_bytes().to_vec()));
        }
        if batch.is_empty() {
            return Ok(Written::default());
        }
        state.tokens.insert(token.writer, token.number);
        Ok(Written { token, pieces: [(0, 1)].into() })
    }

    async fn move_marks(&self, moves: &[MarkMove], written: &Written) -> Result<Vec<MarkOutcome>> {
        let mut state = self.state();
        let Token { writer, number } = written.token;
        let proved = written.pieces(0) == 0 || state.tokens.get(&writer) == Some(&number);
        if proved {
            state.tokens.remove(&writer);
        }
        let outcomes = moves.iter().map(|wanted| {
            let found = state.marks.get(&wanted.chain).copied();
            if found != wanted.expect {
                return MarkOutcome::Found(found);
            }
            if !proved {
                return MarkOutcome::Unproved;
            }
            state.marks.insert(wanted.chain.clone(), wanted.new);
            MarkOutcome::Moved
        });
        Ok(outcomes.collect())
    }

    async fn marks(&self, _bucket: u16) -> Result<Vec<(ChainId, Mark)>> {
        Ok(self.state().marks().to_vec())
    }

    async fn read(&self, queries: &[HotQuery]) -> Result<Vec<HotRead>> {
        let state = self.state();
        let marks = state.marks();
        let reads = queries.iter().map(|query| {
            let members = self.alive(&state, &query.saga).into_iter().flat_map(|key| &key.members).rev();
            let members = members.filter(|(at, _)| *at <= query.upto).take(query.limit).map(member);
            HotRead { members: members.collect(), marks: marks.clone() }
        });
        Ok(reads.collect())
    }

    async fn settle(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written> {
        let at = (self.clock)().saturating_add(self.ttl);
        let mut state = self.state();
        for DurableSaga { saga, sequence } in sagas {
            let Some(key) = state.sagas.get_mut(saga) else { continue };
            if key.members.last().is_some_and(|(_, bytes)| sequence_of(bytes) <= sequence.0) {
                key.expires = Some(at);
            }
            if key.members.len() as u64 > 2 * KEPT {
                key.members.retain(|(_, bytes)| sequence_of(bytes) > sequence.0.saturating_sub(KEPT));
            }
        }
        state.tokens.insert(written.token.writer, written.token.number);
        Ok(Written { token: written.token, pieces: [(0, written.pieces(0) + 1)].into() })
    }

    async fn forget(&self, sagas: &[SagaId]) -> Result<()> {
        self.state().sagas.retain(|saga, _| !sagas.contains(saga));
        Ok(())
    }

    async fn failures(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<FailureFact>> {
        let state = self.state();
        let mut facts = state.read_index(index_bucket::failure_index(query), query, limit, index_bucket::decode_failure)?;
        index_bucket::sort_failures(&mut facts);
        Ok(state.answer(facts, limit))
    }

    async fn activity(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<ActivityFact>> {
        let state = self.state();
        let mut facts = state.read_index(Index::Activity, query, limit, |index_bucket, _, bytes| {
            index_bucket::decode_activity(index_bucket, bytes)
        })?;
        index_bucket::sort_activity(&mut facts);
        Ok(state.answer(facts, limit))
    }

    async fn drop_indexes_before(&self, minute: i64, latest: i64) -> Result<()> {
        let MemoryState { floor, index_buckets, holds, marks, .. } = &mut *self.state();
        if floor.is_some_and(|floor| floor > latest) {
            marks.clear();
            *floor = None;
        }
        *floor = Some(floor.map_or(minute, |floor| floor.max(minute)));
        index_buckets.retain(|index_bucket, _| {
            index_bucket.minute >= minute || holds.iter().any(|hold| hold.index_bucket == *index_bucket)
        });
        Ok(())
    }

    async fn holds(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>> {
        let state = self.state();
        let mut found: Vec<_> =
            state.holds.iter().filter(|hold| hold.bucket == bucket && hold.index_bucket.minute < before).cloned().collect();
        found.sort_by_key(|hold| hold.index_bucket.minute);
        Ok(found.into_iter().skip(skip).take(limit).collect())
    }

    async fn hold(&self, holds: &[Hold]) -> Result<()> {
        self.state().holds.extend(holds.iter().cloned());
        Ok(())
    }

    async fn release(&self, holds: &[Hold]) -> Result<()> {
        let mut state = self.state();
        for hold in holds {
            state.holds.remove(hold);
        }
        Ok(())
    }

    async fn takes_writes(&self) -> Result<()> {
        Ok(())
    }

    async fn owner(&self) -> Result<Option<Installation>> {
        Ok(self.state().owner.clone())
    }

    async fn claim(&self, mine: &Installation) -> Result<Installation> {
        Ok(self.state().owner.get_or_insert_with(|| mine.clone()).clone())
    }

    async fn health(&self) -> Result<HotHealth> {
        Ok(HotHealth::default())
    }
}

/// Members begin with it.
fn sequence_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |sequence| u64::from_be_bytes(*sequence))
}

fn member((effective_time, bytes): &(Micros, Bytes)) -> Member {
    Member { effective_time: *effective_time, bytes: bytes.clone() }
}
