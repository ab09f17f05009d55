-- control(log, tenants, groups, deleted; tenant, tenant_digest, ready_prefix, partition, channel, received_at_us, body) -> its position;
--   0 without a log; the error DELETED for a deleted tenant
--
-- Put a control record at the end of a log. The newest record is not written a second time: its position is the answer.

local log, tenants, groups, deleted = unpack(KEYS)
local tenant, tenant_digest, ready_prefix, partition, channel, received_at_us, body = unpack(ARGV)

if redis.call('SISMEMBER', deleted, tenant_digest) == 1 then return redis.error_reply('DELETED') end
local last = last_position(log)
if last == 0 then return '0' end

local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if newest and newest[1] == whole(last) .. '-0' then
  local fields = fields_of(newest[2])
  if fields['version'] == '2' and fields['event'] == body then return whole(last) end
end

-- The log first: see append.
local position = whole(last + 1)
redis.call('XADD', log, position .. '-0', 'event', body, 'received_at_us', received_at_us, 'version', '2')
wake(log, tenants, groups, tenant, ready_prefix, partition, channel, false)
return position
