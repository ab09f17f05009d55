-- requeue(groups, ready; group, then for each tenant: log, tenant, checkpoint) -> how many tenants were queued
--
-- Register the group. Queue each tenant whose log is ahead of its checkpoint, or that has pending deliveries, and that is not in the
-- queue: a crash between two steps, a lost queue or a restored database left it out.

-- SREM first: a server whose memory is full refuses SADD and ZADD only until a script has written something.
redis.call('SREM', KEYS[1], '')
redis.call('SADD', KEYS[1], ARGV[1])
local queued = 0
for i = 2, #ARGV, 3 do
  local log, tenant, checkpoint = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local pending = redis.pcall('XPENDING', log, ARGV[1])
  if last_position(log) > checkpoint or (pending[1] or 0) > 0 then
    queued = queued + redis.call('ZADD', KEYS[2], 'NX', whole(now_ms()), tenant)
  end
end
return queued
