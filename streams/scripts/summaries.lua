-- summary(tenants; log prefix, usage prefix) -> for each tenant of a partition: tenant, last position, records held, through
-- which position they were archived and have left, and the events that were answered duplicate, conflict, rejected, limited
--
-- A log without holes holds as many records as its last position says, less those that have left.

local answer = {}
for _, tenant in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local log = ARGV[1] .. tenant
  local last = last_position(log)
  local counts = redis.call('HMGET', ARGV[2] .. tenant, 'archived', 'duplicate', 'conflict', 'rejected', 'limited')
  answer[#answer + 1] = {tenant, whole(last), last > 0 and redis.call('XLEN', log) or 0, unpack(counts)}
end
return answer
