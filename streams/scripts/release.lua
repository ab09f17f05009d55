-- release(log, ready, leases; group, lease_owner, tenant, checkpoint, delay_ms, since_ms) -> 1 when level
--
-- Gives a tenant back: due again at the end of the queue, or at its old place if `since_ms` says one, while its log is ahead
-- of the checkpoint, out of the set when it is level. Only the lease_owner gives back; one that was paused past its lease must not end another's.

local log, ready, leases = KEYS[1], KEYS[2], KEYS[3]
local group, lease_owner, tenant, checkpoint, delay_ms, since_ms = unpack(ARGV)

if redis.call('HGET', leases, tenant) ~= lease_owner then return 0 end
redis.call('HDEL', leases, tenant)
if last_position(log) > tonumber(checkpoint) or tonumber(delay_ms) > 0 then
  redis.call('ZADD', ready, since_ms == '0' and whole(now_ms() + delay_ms) or since_ms, tenant)
  return 0
end
redis.call('ZREM', ready, tenant)
return 1
