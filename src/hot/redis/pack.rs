//! A batch as pipelines of Redis commands: grouped by bucket, cut by bytes, no script and no lock. Pure.
//!
//! Facts come before the label of their index bucket and the label before its day: whoever drops a index bucket takes these away in
//! the opposite order, so that nothing is left that no label leads to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use redis::{Cmd, Pipeline};

use super::keys::{RedisKeys, hold_member, token_field};
use crate::hot::index_bucket::{self, IndexBucket};
use crate::hot::store::{Hold, HotBatch, SagaWrite};
use crate::hot::token::{Token, Written};
use crate::saga::position::SagaId;

/// What a command costs beside its arguments' bytes: lengths and separators.
const OVERHEAD: usize = 16;

pub(super) struct Packer<'a> {
    keys: &'a RedisKeys,
    /// Bytes of one pipeline; a single command can be over it.
    limit: usize,
    /// Each of one bucket.
    done: Vec<(u16, Pipeline)>,
    /// Per bucket: what is being filled.
    open: BTreeMap<u16, (Pipeline, usize)>,
}

impl<'a> Packer<'a> {
    pub fn new(keys: &'a RedisKeys, limit: u64) -> Self {
        Self { keys, limit: usize::try_from(limit).unwrap_or(usize::MAX).max(1), done: Vec::new(), open: BTreeMap::new() }
    }

    /// Each pipeline ends with the token: whoever finds it finds the whole pipeline.
    pub fn batch(mut self, batch: &HotBatch, token: Token) -> (Vec<Pipeline>, Written) {
        for write in &batch.sagas {
            self.saga(write);
        }
        self.holds(&batch.holds);
        self.facts(batch);
        let mut written = Written { token, ..Written::default() };
        let mut pipelines = self.finish();
        for (bucket, pipeline) in &mut pipelines {
            let piece = written.pieces.entry(*bucket).or_default();
            let field = token_field(token, *piece);
            pipeline.cmd("HSET").arg(self.keys.tokens(*bucket)).arg(field).arg(token.number).ignore();
            *piece += 1;
        }
        (pipelines.into_iter().map(|(_, pipeline)| pipeline).collect(), written)
    }

    pub fn hold(mut self, holds: &[Hold]) -> Vec<Pipeline> {
        self.holds(holds);
        self.pipelines()
    }

    pub fn release(mut self, holds: &[Hold]) -> Vec<Pipeline> {
        for hold in holds {
            let (key, member) = (self.keys.held(hold.bucket), hold_member(hold));
            self.room(hold.bucket, key.len() + member.len() + OVERHEAD).cmd("ZREM").arg(key).arg(member).ignore();
        }
        self.pipelines()
    }

    fn pipelines(&mut self) -> Vec<Pipeline> {
        self.finish().into_iter().map(|(_, pipeline)| pipeline).collect()
    }

    pub fn forget(mut self, sagas: &[SagaId]) -> Vec<Pipeline> {
        for saga in sagas {
            let bucket = self.bucket(saga);
            let key = self.keys.saga(bucket, saga);
            self.room(bucket, key.len() + OVERHEAD).cmd("UNLINK").arg(key).ignore();
        }
        self.pipelines()
    }

    fn finish(&mut self) -> Vec<(u16, Pipeline)> {
        let open = std::mem::take(&mut self.open);
        self.done.extend(open.into_iter().map(|(bucket, (pipeline, _))| (bucket, pipeline)));
        std::mem::take(&mut self.done)
    }

    fn bucket(&self, saga: &SagaId) -> u16 {
        crate::hot::bucket_of(saga, self.keys.buckets())
    }

    /// The bucket's pipeline, a new one if `bytes` more are too many.
    fn room(&mut self, bucket: u16, bytes: usize) -> &mut Pipeline {
        let (pipeline, filled) = self.open.entry(bucket).or_default();
        if *filled > 0 && *filled + bytes > self.limit {
            self.done.push((bucket, std::mem::take(pipeline)));
            *filled = 0;
        }
        *filled += bytes;
        pipeline
    }

    fn saga(&mut self, write: &SagaWrite) {
        let bucket = self.bucket(&write.saga);
        let key = self.keys.saga(bucket, &write.saga);
        let persist_alone = write.persist && write.members.is_empty();
        if persist_alone {
            self.room(bucket, key.len() + OVERHEAD).cmd("PERSIST").arg(&key).ignore();
        }
        let members = write.members.iter().map(|member| (member.effective_time.0, &member.bytes));
        self.sorted_set(bucket, &key, members, write.persist);
    }

    fn holds(&mut self, holds: &[Hold]) {
        let mut buckets = BTreeMap::<u16, Vec<(i64, Bytes)>>::new();
        for hold in holds {
            buckets.entry(hold.bucket).or_default().push((hold.index_bucket.minute, hold_member(hold).into()));
        }
        for (bucket, holds) in &buckets {
            let key = self.keys.held(*bucket);
            self.sorted_set(*bucket, &key, holds.iter().map(|(minute, hold)| (*minute, hold)), false);
        }
    }

    fn facts(&mut self, batch: &HotBatch) {
        let mut index_buckets: BTreeMap<(u16, IndexBucket), Vec<(i64, Bytes)>> = BTreeMap::new();
        for fact in &batch.failures {
            let index_bucket = index_buckets.entry((self.bucket(&fact.saga), IndexBucket::of_failure(fact))).or_default();
            index_bucket.push((fact.at.0, index_bucket::encode_failure(fact).into()));
        }
        for fact in &batch.activity {
            let index_bucket = index_buckets.entry((self.bucket(&fact.saga), IndexBucket::of_activity(fact))).or_default();
            index_bucket.push((0, Bytes::copy_from_slice(fact.saga.as_str().as_bytes())));
        }
        let mut days = BTreeMap::<(u16, i64), Vec<(i64, Bytes)>>::new();
        for ((bucket, index_bucket), facts) in &index_buckets {
            let key = self.keys.index_bucket(*bucket, index_bucket);
            self.sorted_set(*bucket, &key, facts.iter().map(|(score, fact)| (*score, fact)), false);
            days.entry((*bucket, index_bucket.day())).or_default().push((index_bucket.minute, index_bucket.label().into()));
        }
        for ((bucket, day), labels) in &days {
            let key = self.keys.day(*bucket, *day);
            self.sorted_set(*bucket, &key, labels.iter().map(|(minute, label)| (*minute, label)), false);
        }
        for (bucket, day) in days.into_keys().collect::<BTreeSet<_>>() {
            let key = self.keys.days(bucket);
            self.sorted_set(bucket, &key, [(day, &Bytes::from(day.to_string()))].into_iter(), false);
        }
    }

    /// ZADD in commands of at most `limit` bytes; with `persist` a PERSIST goes before each of them, since each can be
    /// in a pipeline of its own.
    fn sorted_set<'m>(&mut self, bucket: u16, key: &str, members: impl Iterator<Item = (i64, &'m Bytes)> + Clone, persist: bool) {
        let mut members = members.peekable();
        while members.peek().is_some() {
            let mut rest = members.clone();
            let (mut bytes, mut count) = (key.len() + OVERHEAD, 0);
            while let Some((_, member)) = rest.next_if(|(_, m)| count == 0 || bytes + m.len() + OVERHEAD <= self.limit) {
                (bytes, count) = (bytes + member.len() + OVERHEAD, count + 1);
            }
            let mut command = Cmd::with_capacity(2 + 2 * count, bytes);
            command.arg("ZADD").arg(key);
            for (score, member) in members.by_ref().take(count) {
                command.arg(score).arg(&member[..]);
            }
            let pipeline = self.room(bucket, bytes);
            if persist {
                pipeline.cmd("PERSIST").arg(key).ignore();
            }
            pipeline.add_command(command).ignore();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::store::Member;
    use crate::saga::time::Micros;

    const TOKEN: Token = Token { writer: 7, number: 1 };

    fn commands(pipelines: &[Pipeline]) -> Vec<Vec<String>> {
        let text = |arg: redis::Arg<&[u8]>| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => unreachable!("no cursors here"),
        };
        let one = |pipeline: &Pipeline| pipeline.cmd_iter().map(|c| c.args_iter().next().map(text).unwrap()).collect();
        pipelines.iter().map(one).collect()
    }

    fn write(id: &str, members: usize, size: usize, persist: bool) -> SagaWrite {
        let member = |n: usize| Member { effective_time: Micros(n as i64), bytes: vec![n as u8; size].into() };
        SagaWrite { saga: id.into(), members: (0..members).map(member).collect(), persist }
    }

    #[test]
    fn a_pipeline_is_cut_by_bytes_and_persist_goes_before_each_zadd() {
        let keys = RedisKeys::new("t", 1).unwrap();
        let batch = HotBatch { sagas: vec![write("a", 4, 400, true), write("b", 0, 0, true)], ..HotBatch::default() };
        let (pipelines, written) = Packer::new(&keys, 1_000).batch(&batch, TOKEN);
        assert_eq!(commands(&pipelines), [vec!["PERSIST", "ZADD", "HSET"], vec!["PERSIST", "ZADD", "PERSIST", "HSET"]]);
        assert_eq!(written.pieces, [(0, 2)].into());
    }

    #[test]
    fn a_member_over_the_limit_goes_alone() {
        let keys = RedisKeys::new("t", 1).unwrap();
        let batch = HotBatch { sagas: vec![write("a", 2, 400, false)], ..HotBatch::default() };
        let (pipelines, written) = Packer::new(&keys, 10).batch(&batch, TOKEN);
        assert_eq!(commands(&pipelines), [["ZADD", "HSET"], ["ZADD", "HSET"]]);
        assert_eq!(written.pieces, [(0, 2)].into());
    }

    #[test]
    fn a_pipeline_holds_one_bucket() {
        let keys = RedisKeys::new("t", 16).unwrap();
        let batch = HotBatch { sagas: (0..64).map(|n| write(&n.to_string(), 1, 8, false)).collect(), ..HotBatch::default() };
        let (pipelines, written) = Packer::new(&keys, 1 << 20).batch(&batch, TOKEN);
        assert_eq!(written.pieces.into_values().sum::<u32>() as usize, pipelines.len());
        for pipeline in pipelines {
            let tag = |cmd: &Cmd| match cmd.args_iter().nth(1) {
                Some(redis::Arg::Simple(key)) => String::from_utf8_lossy(key).split_inclusive('}').next().unwrap().to_owned(),
                _ => unreachable!("every command has a key"),
            };
            assert_eq!(pipeline.cmd_iter().map(tag).collect::<BTreeSet<_>>().len(), 1);
        }
    }
}
