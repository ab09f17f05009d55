-- summaries(tenants; log_prefix, usage_prefix) -> for each tenant of a partition: tenant, last position, records held, the position
--   up to which they left for the archive, then how many events were answered duplicate, conflict, rejected, limited
--
-- What the server knows of each log. A log without gaps holds as many records as its last position says, less those that left.

local answer = {}
for _, tenant in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local log = ARGV[1] .. tenant
  local last = last_position(log)
  local counts = redis.call('HMGET', ARGV[2] .. tenant, 'archived', 'duplicate', 'conflict', 'rejected', 'limited')
  answer[#answer + 1] = {tenant, whole(last), last > 0 and redis.call('XLEN', log) or 0, unpack(counts)}
end
return answer
