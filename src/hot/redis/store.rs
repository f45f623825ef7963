//! The calls of a hot store in Redis: reads, writes, marks.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, Pipeline, Value};

use super::client::{IN_FLIGHT, RedisHot};
use super::health;
use super::keys::{mark_field, token_field};
use super::pack::Packer;
use super::scripts::MOVE_MARKS;
use super::values::{mark_value, parse_mark, parse_marks, parse_marks_of, parse_members, unexpected};
use crate::error::{Error, Result};
use crate::hot::facts::{ActivityFact, FailureFact, IndexQuery, IndexRead};
use crate::hot::index_bucket;
use crate::hot::mark::{Mark, MarkMove, MarkOutcome, Marks};
use crate::hot::store::{DurableSaga, Hold, HotBatch, HotHealth, HotQuery, HotRead, HotStore};
use crate::hot::token::{Token, Written};
use crate::saga::installation::Installation;
use crate::saga::position::{ChainId, SagaId};
use crate::saga::time::Micros;

/// Sagas read in one MULTI: Redis serves nobody else meanwhile.
const READS_AT_ONCE: usize = 128;

/// How long the key of a trial write lives.
const PROBE_SECONDS: u64 = 60;

impl RedisHot {
    /// Marks of the bucket and the members of each query, as one moment saw them. `marks_of`: only these; empty: all.
    async fn read_chunk(&self, bucket: u16, marks_of: &[ChainId], queries: &[Cmd]) -> Result<Vec<HotRead>> {
        let mut pipeline = Pipeline::with_capacity(queries.len() + 1);
        let marks = self.keys.marks(bucket);
        match marks_of {
            [] => pipeline.atomic().cmd("HGETALL").arg(marks),
            some => pipeline.atomic().cmd("HMGET").arg(marks).arg(some.iter().map(mark_field).collect::<Vec<_>>()),
        };
        for query in queries {
            pipeline.add_command(query.clone());
        }
        let mut answers = self.reads.pipeline::<Vec<Value>>(&pipeline).await?.into_iter();
        let marks: Marks = match marks_of {
            [] => parse_marks(answers.next())?.into(),
            some => parse_marks_of(some, answers.next())?.into(),
        };
        let reads = answers.map(|answer| Ok(HotRead { members: parse_members(answer)?, marks: marks.clone() }));
        let reads = reads.collect::<Result<Vec<_>>>()?;
        if reads.len() == queries.len() { Ok(reads) } else { Err(unexpected("answers")) }
    }

    async fn move_in_bucket(&self, bucket: u16, moves: &[&MarkMove], written: &Written) -> Result<Vec<MarkOutcome>> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(2).arg(self.keys.marks(bucket)).arg(self.keys.tokens(bucket));
            let pieces = written.pieces(bucket);
            command.arg(pieces);
            for piece in 0..pieces {
                command.arg(token_field(written.token, piece)).arg(written.token.number);
            }
            for wanted in moves {
                let expect = wanted.expect.as_ref().map(mark_value).unwrap_or_default();
                command.arg(mark_field(&wanted.chain)).arg(expect).arg(mark_value(&wanted.new));
            }
            command
        };
        let by_hash = command("EVALSHA", self.move_marks.get_hash());
        let found: Vec<String> = self.writes.script(&by_hash, &command("EVAL", MOVE_MARKS)).await?;
        if found.len() != moves.len() {
            return Err(unexpected("answers"));
        }
        let outcome = |found: String| match found.as_str() {
            "=" => Ok(MarkOutcome::Moved),
            "!" => Ok(MarkOutcome::Unproved),
            "" => Ok(MarkOutcome::Found(None)),
            value => Ok(MarkOutcome::Found(Some(parse_mark(value)?))),
        };
        found.into_iter().map(outcome).collect()
    }
}

#[async_trait]
impl HotStore for RedisHot {
    fn buckets(&self) -> u16 {
        self.keys.buckets()
    }

    async fn write(&self, batch: &HotBatch, token: Token) -> Result<Written> {
        let (pipelines, written) = Packer::new(&self.keys, self.pipeline_bytes).batch(batch, token);
        self.send(pipelines).await.map_err(|e| e.context("write history to hot store"))?;
        Ok(written)
    }

    async fn move_marks(&self, moves: &[MarkMove], written: &Written) -> Result<Vec<MarkOutcome>> {
        let mut buckets = BTreeMap::<u16, (Vec<usize>, Vec<&MarkMove>)>::new();
        for (place, wanted) in moves.iter().enumerate() {
            let (places, moves) = buckets.entry(wanted.bucket).or_default();
            places.push(place);
            moves.push(wanted);
        }
        let scripts = buckets.iter().map(|(bucket, (_, moves))| self.move_in_bucket(*bucket, moves, written));
        let outcomes: Vec<_> = stream::iter(scripts.collect::<Vec<_>>())
            .buffered(IN_FLIGHT)
            .try_collect()
            .await
            .map_err(|e: Error| e.context("move marks of hot store"))?;
        let places = buckets.values().flat_map(|(places, _)| places);
        Ok(in_order(places.copied(), outcomes.into_iter().flatten()))
    }

    async fn marks(&self, bucket: u16) -> Result<Vec<(ChainId, Mark)>> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("HGETALL").arg(self.keys.marks(bucket));
        let answers: Vec<Value> = self.reads.pipeline(&pipeline).await.map_err(|e| e.context("read marks of hot store"))?;
        parse_marks(answers.into_iter().next())
    }

    async fn read(&self, queries: &[HotQuery]) -> Result<Vec<HotRead>> {
        let mut buckets = BTreeMap::<u16, (Vec<usize>, Vec<Cmd>)>::new();
        for (place, query) in queries.iter().enumerate() {
            let bucket = self.bucket(&query.saga);
            let mut command = redis::cmd("ZREVRANGEBYSCORE");
            command.arg(self.keys.saga(bucket, &query.saga)).arg(query.upto.0).arg("-inf").arg("WITHSCORES");
            limit(&mut command, query.limit);
            let (places, commands) = buckets.entry(bucket).or_default();
            places.push(place);
            commands.push(command);
        }
        // Of several questions together all marks are read once.
        let marks_of = match queries {
            [query] => &query.marks_of[..],
            _ => &[],
        };
        let chunks =
            buckets.iter().flat_map(|(bucket, (_, commands))| commands.chunks(READS_AT_ONCE).map(|chunk| (*bucket, chunk)));
        let reads = chunks.map(|(bucket, chunk)| self.read_chunk(bucket, marks_of, chunk)).collect::<Vec<_>>();
        let reads: Vec<_> =
            stream::iter(reads).buffered(IN_FLIGHT).try_collect().await.map_err(|e: Error| e.context("read hot store"))?;
        let places = buckets.values().flat_map(|(places, _)| places);
        Ok(in_order(places.copied(), reads.into_iter().flatten()))
    }

    async fn settle(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written> {
        self.settle_all(sagas, written).await.map_err(|e| e.context("let keys of hot store expire"))
    }

    async fn forget(&self, sagas: &[SagaId]) -> Result<()> {
        let pipelines = Packer::new(&self.keys, self.pipeline_bytes).forget(sagas);
        self.send(pipelines).await.map_err(|e| e.context("forget sagas in hot store"))
    }

    async fn failures(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<FailureFact>> {
        let read = self.read_index(
            index_bucket::failure_index(query),
            query,
            limit,
            index_bucket::decode_failure,
            index_bucket::sort_failures,
        );
        read.await.map_err(|e| e.context("read failure index"))
    }

    async fn activity(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<ActivityFact>> {
        let decode = |index_bucket: &index_bucket::IndexBucket, _: Micros, bytes: &[u8]| {
            index_bucket::decode_activity(index_bucket, bytes)
        };
        let read = self.read_index(index_bucket::Index::Activity, query, limit, decode, index_bucket::sort_activity);
        read.await.map_err(|e| e.context("read activity index"))
    }

    async fn drop_indexes_before(&self, minute: i64, latest: i64) -> Result<()> {
        for bucket in 0..self.buckets() {
            self.drop_index_buckets(bucket, minute, latest).await.map_err(|e| e.context("drop old indexes"))?;
        }
        Ok(())
    }

    async fn holds(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>> {
        self.held(bucket, before, skip, limit).await.map_err(|e| e.context("read holds of hot indexes"))
    }

    async fn hold(&self, holds: &[Hold]) -> Result<()> {
        let pipelines = Packer::new(&self.keys, self.pipeline_bytes).hold(holds);
        self.send(pipelines).await.map_err(|e| e.context("hold hot indexes"))
    }

    async fn release(&self, holds: &[Hold]) -> Result<()> {
        let pipelines = Packer::new(&self.keys, self.pipeline_bytes).release(holds);
        self.send(pipelines).await.map_err(|e| e.context("release hot indexes"))
    }

    fn max_member(&self) -> usize {
        usize::try_from(self.max_bulk.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    async fn takes_writes(&self) -> Result<()> {
        self.learn_limits().await;
        for bucket in 0..self.buckets() {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("SET").arg(self.keys.probe(bucket)).arg("").arg("EX").arg(PROBE_SECONDS).ignore();
            self.reads.pipeline::<()>(&pipeline).await.map_err(|e| e.context("write to hot store"))?;
        }
        Ok(())
    }

    async fn owner(&self) -> Result<Option<Installation>> {
        self.read_owner().await.map_err(|e| e.context("read owner of hot store"))
    }

    async fn claim(&self, mine: &Installation) -> Result<Installation> {
        self.read_or_set_owner(mine).await.map_err(|e| e.context("claim hot store"))
    }

    async fn health(&self) -> Result<HotHealth> {
        self.learn_limits().await;
        let mut health = health::judge(&self.reads.each_server::<String>(&redis::cmd("INFO")).await?);
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("zset-max-listpack-value");
        // Managed servers forbid CONFIG; then there is no hint.
        if let Ok(servers) = self.reads.each_server::<Vec<(String, String)>>(&config).await {
            health::hint(&mut health, &servers);
        }
        Ok(health)
    }
}

fn limit(command: &mut Cmd, limit: usize) {
    command.arg("LIMIT").arg(0).arg(i64::try_from(limit).unwrap_or(i64::MAX));
}

/// Answers that came grouped, back in the order of the questions.
fn in_order<T>(places: impl Iterator<Item = usize>, answers: impl Iterator<Item = T>) -> Vec<T> {
    let mut placed: Vec<_> = places.zip(answers).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_return_in_the_order_of_the_questions() {
        assert_eq!(in_order([2, 0, 1].into_iter(), ["c", "a", "b"].into_iter()), ["a", "b", "c"]);
    }
}
