-- survey(tenants; log prefix) -> for each tenant of a partition: tenant, last position, records held, oldest position held
--
-- A log without holes holds as many records as lie between its oldest and its newest.

local answer = {}
for _, tenant in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local log = ARGV[1] .. tenant
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  answer[#answer + 1] = tenant
  answer[#answer + 1] = whole(last_position(log))
  answer[#answer + 1] = redis.call('XLEN', log)
  answer[#answer + 1] = oldest and string.match(oldest[1], '^%d+') or '0'
end
return answer
