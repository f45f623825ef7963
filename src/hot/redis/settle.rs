//! Letting go of what S3 has: keys may expire, and long histories lose their durable head.
//!
//! By a script, since what may be done depends on the newest member: an owner that lost its partition may come late, to
//! a key with entries that S3 does not have yet. Members are looked at for their sequence alone, their first 8 bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redis::Cmd;

use super::client::{IN_FLIGHT, RedisHot};
use super::keys::token_field;
use super::scripts::SETTLE;
use crate::error::Result;
use crate::hot::store::{DurableSaga, HotStore, KEPT};
use crate::hot::token::Written;

/// Keys in one script: Redis serves nobody else meanwhile.
const SETTLED_AT_ONCE: usize = 256;
/// About 292 years: Redis refuses times beyond 64 bits of milliseconds.
const MAX_TTL_MS: u64 = 1 << 43;

impl RedisHot {
    pub(super) async fn settle_all(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written> {
        let mut buckets = BTreeMap::<u16, Vec<&DurableSaga>>::new();
        for durable in sagas {
            buckets.entry(self.bucket(&durable.saga)).or_default().push(durable);
        }
        let (mut written, mut scripts) = (written.clone(), Vec::new());
        for (bucket, sagas) in &buckets {
            let piece = written.pieces.entry(*bucket).or_default();
            for chunk in sagas.chunks(SETTLED_AT_ONCE) {
                scripts.push((*bucket, *piece, chunk));
                *piece += 1;
            }
        }
        let token = written.token;
        let sent = scripts.into_iter().map(|(bucket, piece, chunk)| async move {
            let command = |name: &str, script: &str| {
                self.settle_command(name, script, bucket, chunk, &token_field(token, piece), token.number)
            };
            let by_hash = command("EVALSHA", self.settle.get_hash());
            self.writes.script::<u64>(&by_hash, &command("EVAL", SETTLE)).await
        });
        let sent = stream::iter(sent.collect::<Vec<_>>()).buffer_unordered(IN_FLIGHT);
        sent.try_collect::<Vec<u64>>().await?;
        Ok(written)
    }

    fn settle_command(&self, name: &str, script: &str, bucket: u16, sagas: &[&DurableSaga], field: &str, number: u64) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(sagas.len() + 1).arg(self.keys.tokens(bucket));
        for durable in sagas {
            command.arg(self.keys.saga(bucket, &durable.saga));
        }
        command.arg(field).arg(number).arg(millis(self.ttl)).arg(KEPT);
        for durable in sagas {
            command.arg(durable.sequence.0);
        }
        command
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_TTL_MS)
}
