//! The Lua scripts that run in Redis. Each is sent by its hash, and by its text where the server does not have it.

/// How many tokens, of each field and value; then per mark: field, expected value (empty: none), new value. Answers `=` if
/// moved, `!` if a token is missing, else what is there. Tokens that were found have done their duty. Those of writers
/// that died go all together once they are many: a living one's write that this takes for lost is only written again.
pub(super) const MOVE_MARKS: &str = "\
local last = 1 + 2 * tonumber(ARGV[1])
local proved = true
for i = 2, last, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) ~= ARGV[i + 1] then proved = false end
end
if proved and last > 1 then
  for i = 2, last, 2 do redis.call('HDEL', KEYS[2], ARGV[i]) end
  if redis.call('HLEN', KEYS[2]) > 4096 then redis.call('DEL', KEYS[2]) end
end
local out = {}
for i = last + 1, #ARGV, 3 do
  local found = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  if found == ARGV[i + 1] then
    found = '!'
    if proved then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
      found = '='
    end
  end
  out[#out + 1] = found
end
return out";

/// Keys: held, day, index buckets. Arguments: first and last minute of these index buckets, their labels. Drops those that nobody holds,
/// label and index bucket in one step; answers how many are held, and how many labels the day has left. Looks at no holds of other
/// minutes: a backlog of old events may have many.
pub(super) const DROP_LABELS: &str = "\
local held, kept = {}, 0
for _, hold in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2])) do
  local label = string.match(hold, '^[^/]*/%d+/%d+/%d+/(.*)$')
  if label then held[label] = true end
end
for i = 3, #KEYS do
  local label = ARGV[i]
  if held[label] then
    kept = kept + 1
  else
    redis.call('ZREM', KEYS[2], label)
    redis.call('UNLINK', KEYS[i])
  end
end
return {kept, redis.call('ZCARD', KEYS[2])}";

/// KEYS: of the tokens, then of sagas. ARGV: field and value of the token, time to live in ms, members kept, then per
/// saga its newest durable sequence. The head is found by halving: members lie in the order of their sequences.
pub(super) const SETTLE: &str = "\
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
