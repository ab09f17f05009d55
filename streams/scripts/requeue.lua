-- repair(groups, ready; group, then for each tenant: log key, tenant, checkpoint) -> how many were made ready
--
-- Puts tenants whose log is ahead of their checkpoint, or of which something is still pending, back into the ready set,
-- if they are missing there, and registers the group. It repairs what a crash between two steps, a lost set or a restored
-- database left.

-- SREM first: a server whose memory is full refuses SADD and ZADD only until a script has written something.
redis.call('SREM', KEYS[1], '')
redis.call('SADD', KEYS[1], ARGV[1])
local repaired = 0
for i = 2, #ARGV, 3 do
  local log, tenant, checkpoint = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local pending = redis.pcall('XPENDING', log, ARGV[1])
  if last_position(log) > checkpoint or (pending[1] or 0) > 0 then
    repaired = repaired + redis.call('ZADD', KEYS[2], 'NX', whole(now_ms()), tenant)
  end
end
return repaired
