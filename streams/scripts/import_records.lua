-- import_records(log, tenants, groups, deleted, dedup_key...; tenant, tenant_digest, ready_prefix, partition, channel, first, records,
--                then for each record: received_at_us, version, body; then for each dedup key: position, digest, hash_parts,
--                remaining_ms) -> the last position that the log had; the error DELETED for a deleted tenant
--
-- Write records at the positions that they had elsewhere, and what is left of their dedup keys. Nothing is written unless `first` is
-- the next position.

local log, tenants, groups, deleted = unpack(KEYS, 1, 4)
local tenant, tenant_digest, ready_prefix, partition, channel, first, records = unpack(ARGV, 1, 7)

local last = last_position(log)
if last + 1 ~= tonumber(first) then return whole(last) end
if last == 0 and redis.call('SISMEMBER', deleted, tenant_digest) == 1 then return redis.error_reply('DELETED') end

-- The log first: see append.
for i = 1, tonumber(records) do
  local at = 5 + i * 3
  redis.call('XADD', log, whole(last + i) .. '-0', 'event', ARGV[at + 2], 'received_at_us', ARGV[at], 'version', ARGV[at + 1])
end

local dedup_arguments = 7 + records * 3
for i = 5, #KEYS do
  local at = dedup_arguments + (i - 5) * 4
  remember(KEYS[i], unpack(ARGV, at + 1, at + 4))
end

wake(log, tenants, groups, tenant, ready_prefix, partition, channel, last == 0)
return whole(last)
