-- survey(tenants; log prefix) -> for each tenant of a partition: tenant, last position, records held
--
-- A log without holes holds as many records as its last position says.

local answer = {}
for _, tenant in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local log = ARGV[1] .. tenant
  local last = last_position(log)
  answer[#answer + 1] = tenant
  answer[#answer + 1] = whole(last)
  answer[#answer + 1] = last > 0 and redis.call('XLEN', log) or 0
end
return answer
