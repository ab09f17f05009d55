-- recover(log, tenants, groups, usage, deleted, dedup_key...; tenant, tenant_digest, ready_prefix, partition, channel, through,
--         received_at_us, version, body, then for each dedup key: position, digest, hash_parts, remaining_ms) -> the last position;
--   the error DELETED for a deleted tenant
--
-- Give a server that has nothing of a log its newest archived record, at `through`, so that the log goes on after it; then the
-- dedup keys. Nothing is written where the log ends before `through` and is not empty: it has another history.

local log, tenants, groups, usage, deleted = unpack(KEYS, 1, 5)
local tenant, tenant_digest, ready_prefix, partition, channel, through, received_at_us, version, body = unpack(ARGV, 1, 9)

local last = last_position(log)
if last == 0 then
  if redis.call('SISMEMBER', deleted, tenant_digest) == 1 then return redis.error_reply('DELETED') end
  redis.call('XADD', log, through .. '-0', 'event', body, 'received_at_us', received_at_us, 'version', version)
  redis.call('HSET', usage, 'archived', whole(tonumber(through) - 1))
  wake(log, tenants, groups, tenant, ready_prefix, partition, channel, true)
  last = tonumber(through)
end
if last < tonumber(through) then return whole(last) end
for i = 6, #KEYS do
  local at = 10 + (i - 6) * 4
  remember(KEYS[i], unpack(ARGV, at, at + 3))
end
return whole(last)
