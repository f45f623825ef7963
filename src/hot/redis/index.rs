//! Reading and dropping the index buckets of facts in Redis.
//!
//! Marks are read before the facts and again after them: a mark that changed its start or went back meanwhile vouches
//! for nothing. The floor is read after the facts, since whoever drops index buckets raises it first.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::try_join_all;
use redis::{Pipeline, Value};

use super::client::RedisHot;
use super::keys::{FLOOR, parse_hold};
use super::scripts::DROP_LABELS;
use super::values::{micros, parse, parse_marks, unexpected};
use crate::error::Result;
use crate::hot::facts::{IndexQuery, IndexRead};
use crate::hot::index_bucket::{self, Index, IndexBucket, MINUTES_A_DAY};
use crate::hot::mark::Mark;
use crate::hot::store::{Hold, HotStore};
use crate::saga::position::ChainId;
use crate::saga::time::Micros;

/// Index buckets read in one round trip, or those of one minute.
const BUCKETS_AT_ONCE: usize = 64;
/// Index buckets dropped in one round trip.
const DROPPED_AT_ONCE: usize = 1_000;

type BucketMarks = Vec<(ChainId, Mark)>;

impl RedisHot {
    pub(super) async fn read_index<F>(
        &self,
        index: Index,
        query: &IndexQuery,
        limit: usize,
        decode: impl Fn(&IndexBucket, Micros, &[u8]) -> Result<F>,
        sort: impl Fn(&mut [F]),
    ) -> Result<IndexRead<F>> {
        // An empty window reads no day, but still tells marks and floor.
        let window = index_bucket::minutes(query).unwrap_or((0, -1));
        let (before, days) = self.marks_and_days(window).await?;
        let mut facts = Vec::new();
        'days: for day in days {
            let labels = try_join_all((0..self.buckets()).map(|bucket| self.labels(bucket, day, window))).await?;
            let mut index_buckets: Vec<_> =
                labels.into_iter().flatten().filter(|(_, index_bucket)| index_bucket.fits(index, query)).collect();
            index_buckets.sort_by_key(|(_, index_bucket)| std::cmp::Reverse(index_bucket.minute));
            let mut rest = &index_buckets[..];
            while !rest.is_empty() {
                if facts.len() > limit {
                    break 'days;
                }
                let (chunk, after) = rest.split_at(whole_minutes(rest));
                for (index_bucket, at, bytes) in self.read_facts(chunk, query, limit).await? {
                    facts.push(decode(index_bucket, at, &bytes)?);
                }
                rest = after;
            }
        }
        sort(&mut facts);
        let more = facts.len() > limit;
        facts.truncate(limit);
        let (after, kept_from) = self.marks_and_floor().await?;
        Ok(IndexRead { facts, marks: held(before, &after), kept_from, more })
    }

    /// The marks of every bucket, and the days of these minutes that have index buckets, newest first.
    async fn marks_and_days(&self, (first, last): (i64, i64)) -> Result<(Vec<BucketMarks>, Vec<i64>)> {
        let read = async |bucket| {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.atomic().cmd("HGETALL").arg(self.keys.marks(bucket)).cmd("ZRANGEBYSCORE").arg(self.keys.days(bucket));
            pipeline.arg(first.div_euclid(MINUTES_A_DAY)).arg(last.div_euclid(MINUTES_A_DAY));
            let mut answers = self.reads.pipeline::<Vec<Value>>(&pipeline).await?.into_iter();
            let marks = parse_marks(answers.next())?;
            let days: Vec<i64> = parse(answers.next().ok_or_else(|| unexpected("answers"))?)?;
            Ok::<_, crate::error::Error>((marks, days))
        };
        let (marks, days): (Vec<_>, Vec<_>) = try_join_all((0..self.buckets()).map(read)).await?.into_iter().unzip();
        let mut days: Vec<_> = days.into_iter().flatten().collect();
        days.sort_unstable_by(|a, b| b.cmp(a));
        days.dedup();
        Ok((marks, days))
    }

    /// The index buckets of a day within these minutes.
    async fn labels(&self, bucket: u16, day: i64, (first, last): (i64, i64)) -> Result<Vec<(u16, IndexBucket)>> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("ZRANGEBYSCORE").arg(self.keys.day(bucket, day)).arg(first).arg(last);
        let (labels,): (Vec<String>,) = self.reads.pipeline(&pipeline).await?;
        let index_bucket = |label: String| Ok((bucket, IndexBucket::parse(&label).ok_or_else(|| unexpected("a label"))?));
        labels.into_iter().map(index_bucket).collect()
    }

    /// The facts on these index buckets, at most `limit` + 1 of each.
    async fn read_facts<'s>(
        &self,
        index_buckets: &'s [(u16, IndexBucket)],
        query: &IndexQuery,
        limit: usize,
    ) -> Result<Vec<(&'s IndexBucket, Micros, Bytes)>> {
        let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let mut buckets = BTreeMap::<u16, (Vec<&IndexBucket>, Pipeline)>::new();
        for (bucket, index_bucket) in index_buckets {
            let (places, pipeline) = buckets.entry(*bucket).or_default();
            places.push(index_bucket);
            let key = self.keys.index_bucket(*bucket, index_bucket);
            match index_bucket.index {
                // All have score 0: in the order of the saga ids.
                Index::Activity => pipeline.cmd("ZRANGEBYSCORE").arg(key).arg("-inf").arg("+inf"),
                Index::Failures | Index::Compensations => {
                    pipeline.cmd("ZREVRANGEBYSCORE").arg(key).arg(query.until.0.saturating_sub(1)).arg(query.since.0)
                }
            };
            pipeline.arg("WITHSCORES").arg("LIMIT").arg(0).arg(most);
        }
        let reads = buckets.values().map(|(_, pipeline)| self.reads.pipeline::<Vec<Vec<(Bytes, f64)>>>(pipeline));
        let answers = try_join_all(reads).await?.into_iter().flatten();
        let places = buckets.values().flat_map(|(places, _)| places.iter().copied());
        let facts = places
            .zip(answers)
            .flat_map(|(index_bucket, facts)| facts.into_iter().map(move |(bytes, score)| (index_bucket, micros(score), bytes)));
        Ok(facts.collect())
    }

    async fn marks_and_floor(&self) -> Result<(Vec<BucketMarks>, Micros)> {
        let read = async |bucket| {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.atomic().cmd("HGETALL").arg(self.keys.marks(bucket)).cmd("ZSCORE").arg(self.keys.floor(bucket)).arg(FLOOR);
            let mut answers = self.reads.pipeline::<Vec<Value>>(&pipeline).await?.into_iter();
            let marks = parse_marks(answers.next())?;
            let floor: Option<f64> = parse(answers.next().ok_or_else(|| unexpected("answers"))?)?;
            Ok::<_, crate::error::Error>((marks, floor.map_or(Micros::MIN, |minute| index_bucket::minute_start(minute as i64))))
        };
        let (marks, floors): (Vec<_>, Vec<_>) = try_join_all((0..self.buckets()).map(read)).await?.into_iter().unzip();
        Ok((marks, floors.into_iter().max().unwrap_or(Micros::MIN)))
    }

    /// Labels go before their index buckets and days last, so that an interrupted drop can be taken up again.
    pub(super) async fn drop_index_buckets(&self, bucket: u16, minute: i64, latest: i64) -> Result<()> {
        let last = minute.saturating_sub(1);
        self.lower_floor(bucket, minute, latest).await?;
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ZADD").arg(self.keys.floor(bucket)).arg("GT").arg(minute).arg(FLOOR).ignore();
        pipeline.cmd("ZRANGEBYSCORE").arg(self.keys.days(bucket)).arg("-inf").arg(last.div_euclid(MINUTES_A_DAY));
        let (days,): (Vec<i64>,) = self.writes.pipeline(&pipeline).await?;
        for day in days {
            let mut held = 0;
            while self.drop_some(bucket, day, last, &mut held).await? {}
        }
        Ok(())
    }

    /// Puts a floor right that a wrong clock has set. What was dropped with it may lie inside the marks: they go with it,
    /// and each owner begins a new one.
    async fn lower_floor(&self, bucket: u16, minute: i64, latest: i64) -> Result<()> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("ZSCORE").arg(self.keys.floor(bucket)).arg(FLOOR);
        let (floor,): (Option<f64>,) = self.writes.pipeline(&pipeline).await?;
        if floor.is_none_or(|floor| floor as i64 <= latest) {
            return Ok(());
        }
        tracing::warn!(bucket, "hot indexes were dropped by a clock that was ahead: marks start over");
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.atomic().cmd("DEL").arg(self.keys.marks(bucket)).ignore();
        pipeline.cmd("ZADD").arg(self.keys.floor(bucket)).arg(minute).arg(FLOOR).ignore();
        self.writes.pipeline(&pipeline).await
    }

    /// Drops index buckets of a day up to a minute, after those that turned out to be held; `true`: there may be more.
    async fn drop_some(&self, bucket: u16, day: i64, last: i64, held: &mut usize) -> Result<bool> {
        let key = self.keys.day(bucket, day);
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("ZRANGEBYSCORE").arg(&key).arg("-inf").arg(last).arg("LIMIT").arg(*held).arg(DROPPED_AT_ONCE);
        let (labels,): (Vec<String>,) = self.writes.pipeline(&pipeline).await?;
        let index_buckets: Vec<_> = labels.iter().filter_map(|label| Some((label, IndexBucket::parse(label)?))).collect();
        let minutes = || index_buckets.iter().map(|(_, index_bucket)| index_bucket.minute);
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(2 + index_buckets.len()).arg(self.keys.held(bucket)).arg(&key);
            for (_, index_bucket) in &index_buckets {
                command.arg(self.keys.index_bucket(bucket, index_bucket));
            }
            command.arg(minutes().min().unwrap_or(last)).arg(minutes().max().unwrap_or(last));
            for (label, _) in &index_buckets {
                command.arg(label);
            }
            command
        };
        let by_hash = command("EVALSHA", self.drop_labels.get_hash());
        let (kept, left): (usize, u64) = self.writes.script(&by_hash, &command("EVAL", DROP_LABELS)).await?;
        // One that is not ours stays where it is.
        *held += kept + labels.len() - index_buckets.len();
        if left == 0 {
            self.forget_day(bucket, day).await?;
        }
        Ok(labels.len() == DROPPED_AT_ONCE)
    }

    pub(super) async fn held(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("ZRANGEBYSCORE").arg(self.keys.held(bucket)).arg("-inf").arg(before.saturating_sub(1));
        pipeline.arg("LIMIT").arg(skip).arg(limit);
        let (members,): (Vec<String>,) = self.reads.pipeline(&pipeline).await?;
        members.iter().map(|member| parse_hold(bucket, member).ok_or_else(|| unexpected("a hold"))).collect()
    }

    /// Takes an empty day out of the list, unless something was put there meanwhile.
    async fn forget_day(&self, bucket: u16, day: i64) -> Result<()> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.atomic().cmd("ZREM").arg(self.keys.days(bucket)).arg(day).ignore();
        pipeline.cmd("EXISTS").arg(self.keys.day(bucket, day));
        let (used,): (bool,) = self.writes.pipeline(&pipeline).await?;
        if used {
            let mut back = Pipeline::with_capacity(1);
            back.cmd("ZADD").arg(self.keys.days(bucket)).arg(day).arg(day).ignore();
            self.writes.pipeline::<()>(&back).await?;
        }
        Ok(())
    }
}

/// How many index buckets to read next, at least [`BUCKETS_AT_ONCE`]: a minute is read whole, so that newest first holds over all
/// buckets and names.
fn whole_minutes(index_buckets: &[(u16, IndexBucket)]) -> usize {
    let some = BUCKETS_AT_ONCE.min(index_buckets.len());
    let minute = index_buckets[some - 1].1.minute;
    some + index_buckets[some..].partition_point(|(_, index_bucket)| index_bucket.minute == minute)
}

/// The marks of before that still held after.
fn held(before: Vec<BucketMarks>, after: &[BucketMarks]) -> Vec<(u16, ChainId, Mark)> {
    let holds = |bucket: usize, chain: &ChainId, mark: &Mark| {
        let now = after.get(bucket).and_then(|marks| marks.iter().find(|(other, _)| other == chain));
        now.is_some_and(|(_, now)| now.from <= mark.from && mark.to <= now.to)
    };
    let buckets = before.into_iter().enumerate();
    let marks = buckets.flat_map(|(bucket, marks)| marks.into_iter().map(move |(chain, mark)| (bucket, chain, mark)));
    marks.filter(|(bucket, chain, mark)| holds(*bucket, chain, mark)).map(|(b, chain, mark)| (b as u16, chain, mark)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::position::Offset;

    #[test]
    fn a_mark_that_was_lost_or_began_anew_meanwhile_vouches_for_nothing() {
        let chain = ChainId { topic: "t".into(), incarnation: 0, partition: 0 };
        let mark = |from, to| {
            vec![vec![(
                chain.clone(),
                Mark { from: Offset(from), to: Offset(to), complete_through: Micros(0), settled: Offset(0) },
            )]]
        };
        assert_eq!(held(mark(0, 9), &mark(0, 12)).len(), 1);
        assert_eq!(held(mark(0, 9), &mark(5, 12)), []);
        assert_eq!(held(mark(0, 9), &mark(0, 8)), []);
        assert_eq!(held(mark(0, 9), &[vec![]]), []);
    }
}
