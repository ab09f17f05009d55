-- control_record(log, tenants, groups, deleted; tenant, tenant digest, ready prefix, partition, channel, received_at_us, control_record) -> position
--
-- Puts a control_record at the end of a log that is there. The same control_record again, with nothing between, is not written twice: its position
-- is answered. The log is written first, as by the append script.

local log, tenants, groups, deleted = unpack(KEYS)
local tenant, tenant_digest, ready_prefix, partition, channel, received_at_us, control_record = unpack(ARGV)

if redis.call('SISMEMBER', deleted, tenant_digest) == 1 then return redis.error_reply('DELETED') end
local last = last_position(log)
if last == 0 then return redis.error_reply('NOLOG') end

local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if newest and newest[1] == whole(last) .. '-0' then
  local field = {}
  for i = 1, #newest[2], 2 do field[newest[2][i]] = newest[2][i + 1] end
  if field['version'] == '2' and field['event'] == control_record then return whole(last) end
end

local position = whole(last + 1)
redis.call('XADD', log, position .. '-0', 'event', control_record, 'received_at_us', received_at_us, 'version', '2')
wake(log, tenants, groups, tenant, ready_prefix, partition, channel, false)
return position
