-- restore(log, tenants, groups, deleted, seen...; tenant, tenant digest, ready prefix, partition, channel, first, records,
--         then for each record: received_at_us, version, body; then for each seen key: position, digest, hash_parts, remaining_ms)
--   -> the last position that the log had; the records were written if `first` is the next, and nothing was otherwise
--
-- Records get the positions they had elsewhere, one atomic act for all, and the claims on their names that still hold there.
-- The log is written first, for the reason that append gives.

local log, tenants, groups, deleted = unpack(KEYS, 1, 4)
local tenant, tenant_digest, ready_prefix, partition, channel, first, records = unpack(ARGV, 1, 7)

local last = last_position(log)
if last + 1 ~= tonumber(first) then return whole(last) end
if last == 0 and redis.call('SISMEMBER', deleted, tenant_digest) == 1 then return redis.error_reply('DELETED') end

for i = 1, tonumber(records) do
  local at = 5 + i * 3
  redis.call('XADD', log, whole(last + i) .. '-0', 'event', ARGV[at + 2], 'received_at_us', ARGV[at], 'version', ARGV[at + 1])
end

local claims = 7 + records * 3
for i = 5, #KEYS do
  local at = claims + (i - 5) * 4
  claim(KEYS[i], unpack(ARGV, at + 1, at + 4))
end

wake(log, tenants, groups, tenant, ready_prefix, partition, channel, last == 0)
return whole(last)
