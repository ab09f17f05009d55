-- append(log, tenants, groups, usage, deleted, suppressed, dedup_key...; tenant, tenant_digest, ready_prefix, partition, channel,
--        received_at_us, window_ms, rejected, events_per_second, bytes_per_second, events_per_day, then for each event: digest,
--        hash_parts, body) -> for each event: outcome, position or limit; then wait_ms; the error DELETED for a deleted tenant
--
-- Append events to a log, each once. Outcomes: 1 accepted, 2 duplicate, 3 conflict, 4 limited with the number of the limit, of which
-- 0 is none; wait_ms says when what was limited would fit. `rejected` events were refused before and are counted here. An event with
-- the hash_parts `dead_letter` becomes a dead letter. A script is isolated but does not roll back, so the log is written before the
-- dedup key: a dedup key without its event would answer a retry "duplicate", and the event would be lost.

local log, tenants, groups, usage, deleted, suppressed = unpack(KEYS, 1, 6)
local tenant, tenant_digest, ready_prefix, partition, channel, received_at_us, window_ms, rejected = unpack(ARGV, 1, 8)
local limits = {tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])}
local DAY_MS = 86400000

local last = last_position(log)
local first = last + 1
if last == 0 and redis.call('SISMEMBER', deleted, tenant_digest) == 1 then return redis.error_reply('DELETED') end

-- find(value, hash_parts) -> position and digest of the event of these hash_parts, from the value of a dedup key, which is like
-- "12/9f86d081884c7d65/4.9 77/60303ae22b998861/5.8"
local function find(value, hash_parts)
  for position, digest, entry_parts in string.gmatch(value, '(%d+)/(%x+)/([^ ]+)') do
    if entry_parts == hash_parts then return position, digest end
  end
end

-- find_suppressed(dedup_key, hash_parts) -> the position of a suppressed event. Few tenants have any, and so a salt.
local salt = redis.call('HGET', suppressed, 'salt')
local function find_suppressed(dedup_key, hash_parts)
  return redis.call('HGET', suppressed, redis.sha1hex(salt .. string.sub(dedup_key, -32) .. hash_parts)) or nil
end

-- What is left of two buckets, which fill with a second's worth in a second, and of the day (UTC).
local left, now, today
if limits[1] + limits[2] + limits[3] > 0 then
  now = now_ms()
  local stored = redis.call('HMGET', usage, 'events_left', 'bytes_left', 'at_ms', 'today')
  local at_ms = tonumber(stored[3]) or 0
  today = math.floor(at_ms / DAY_MS) == math.floor(now / DAY_MS) and tonumber(stored[4]) or 0
  left = {math.huge, math.huge, limits[3] > 0 and limits[3] - today or math.huge}
  for i = 1, 2 do
    if limits[i] > 0 then
      left[i] = math.min(limits[i], (tonumber(stored[i]) or limits[i]) + math.max(0, now - at_ms) * limits[i] / 1000)
    end
  end
end

-- passed_limit() -> the limit that one more event would pass, the longest wait first. The bucket of bytes may go below zero, so an
-- event of any size is accepted at some time.
local function passed_limit()
  return left[3] < 1 and 3 or left[1] < 1 and 1 or left[2] <= 0 and 2
end

local answer = {}
local counts = {0, 0, 0, 0}
local over_bytes, over_day = 0, false
for i = 7, #KEYS do
  local at = 12 + (i - 7) * 3
  local digest, hash_parts, body = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local value = redis.call('GET', KEYS[i])
  local outcome, position, known_digest = 1
  if value then position, known_digest = find(value, hash_parts) end
  if salt and not position then position, known_digest = find_suppressed(KEYS[i], hash_parts), digest end
  if position then
    outcome = known_digest == digest and 2 or 3
  elseif left and passed_limit() then
    outcome, position = 4, passed_limit()
    over_bytes, over_day = over_bytes + #body, position == 3
  else
    last = last + 1
    position = whole(last)
    redis.call('XADD', log, position .. '-0', 'event', body, 'received_at_us', received_at_us,
      'version', hash_parts == 'dead_letter' and '3' or '1')
    local entry = position .. '/' .. digest .. '/' .. hash_parts
    redis.call('SET', KEYS[i], value and (value .. ' ' .. entry) or entry, 'PX', window_ms)
    if left then left = {left[1] - 1, left[2] - #body, left[3] - 1} end
  end
  counts[outcome] = counts[outcome] + 1
  answer[#answer + 1] = outcome
  answer[#answer + 1] = position
end

if last >= first then wake(log, tenants, groups, tenant, ready_prefix, partition, channel, first == 1) end

-- HDEL first: a server whose memory is full refuses HSET only until a script has written something.
local function write_usage(...)
  redis.call('HDEL', usage, '')
  redis.call(...)
end
if counts[2] > 0 then write_usage('HINCRBY', usage, 'duplicate', counts[2]) end
if counts[3] > 0 then write_usage('HINCRBY', usage, 'conflict', counts[3]) end
if counts[4] > 0 then write_usage('HINCRBY', usage, 'limited', counts[4]) end
if tonumber(rejected) > 0 then
  write_usage('HINCRBY', usage, 'rejected', rejected)
  if last == 0 then redis.call('SADD', tenants, tenant) end -- so that the count can be found
end
if left and counts[1] > 0 then
  write_usage('HSET', usage, 'events_left', limits[1] > 0 and string.format('%.3f', left[1]) or '',
    'bytes_left', limits[2] > 0 and whole(left[2]) or '', 'at_ms', whole(now), 'today', whole(today + counts[1]))
end

local wait_ms = 0
if over_day then
  wait_ms = DAY_MS - now % DAY_MS
elseif counts[4] > 0 then
  local over = {counts[4], over_bytes}
  for i = 1, 2 do
    if limits[i] > 0 then wait_ms = math.max(wait_ms, (math.min(over[i], limits[i]) - left[i]) * 1000 / limits[i]) end
  end
end
answer[#answer + 1] = math.ceil(wait_ms)
return answer
