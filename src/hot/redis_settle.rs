//! Letting go of what S3 has: keys may expire, and long histories lose their durable head.
//!
//! By a script, since what may be done depends on the newest member: an owner that lost its partition may come late, to
//! a key with entries that S3 does not have yet. Members are looked at for their sequence alone, their first 8 bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redis::Cmd;

use super::keys::token_field;
use super::redis_store::{IN_FLIGHT, RedisHot};
use super::{DurableSaga, HotStore, KEPT, Written};
use crate::error::Result;

/// Keys in one script: Redis serves nobody else meanwhile.
const SETTLED_AT_ONCE: usize = 256;
/// About 292 years: Redis refuses times beyond 64 bits of milliseconds.
const MAX_TTL_MS: u64 = 1 << 43;

/// KEYS: of the tokens, then of sagas. ARGV: field and value of the token, time to live in ms, members kept, then per
/// saga its newest durable sequence. The head is found by halving: members lie in the order of their sequences.
const SETTLE: &str = "\
local kept = tonumber(ARGV[4])
local function sequence(key, rank)
  return struct.unpack('>I8', redis.call('ZRANGE', key, rank, rank)[1])
end
for i = 2, #KEYS do
  local key, durable = KEYS[i], tonumber(ARGV[i + 3])
  local card = redis.call('ZCARD', key)
  if card > 0 and sequence(key, -1) <= durable then redis.call('PEXPIRE', key, ARGV[3]) end
  if card > 2 * kept then
    local low, high = 0, card
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sequence(key, middle) <= durable - kept then low = middle + 1 else high = middle end
    end
    if low > 0 then redis.call('ZREMRANGEBYRANK', key, 0, low - 1) end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1";

pub(super) fn script() -> redis::Script {
    redis::Script::new(SETTLE)
}

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
