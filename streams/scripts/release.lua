-- release(log, ready, leases; group, lease_owner, tenant, checkpoint, delay_ms, since_ms) -> 1 when the tenant left the queue, else 0
--
-- End a lease. While the log is ahead of the checkpoint the tenant is due again: at the end of the queue, or at its old place when
-- since_ms is not 0. Only the lease owner releases: a projector that was paused past its lease must not end the next lease.

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
