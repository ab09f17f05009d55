-- take(ready, leases; group, holder, lease_ms, records, log prefix) -> for each tenant: tenant, last position, last holder
--
-- Takes the tenants that are due, oldest first, until they hold about as many unread records as wanted, by moving
-- their score one lease ahead. The last holder is '' unless one took the tenant and never released it.

local ready, leases = KEYS[1], KEYS[2]
local group, holder, lease_ms, records, log_prefix = unpack(ARGV)
local now = now_ms()
local left = tonumber(records)
local answer = {}

-- The group's last delivered position; what it has not delivered is what there is to read.
local function delivered(log)
  local groups = redis.pcall('XINFO', 'GROUPS', log)
  if groups.err then return 0 end
  for _, info in ipairs(groups) do
    local name, id
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] end
      if info[i] == 'last-delivered-id' then id = info[i + 1] end
    end
    if name == group then return tonumber(string.match(id, '^%d+')) end
  end
  return 0
end

for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', ready, '-inf', whole(now), 'LIMIT', 0, 256)) do
  if left <= 0 then break end
  local log = log_prefix .. tenant
  local before = redis.call('HGET', leases, tenant) or ''
  -- HDEL first: a server whose memory is full refuses ZADD and HSET only until a script has written something.
  redis.call('HDEL', leases, tenant)
  redis.call('ZADD', ready, 'XX', whole(now + lease_ms), tenant)
  redis.call('HSET', leases, tenant, holder)
  local last = last_position(log)
  left = left - math.max(last - delivered(log), 1)
  answer[#answer + 1] = tenant
  answer[#answer + 1] = whole(last)
  answer[#answer + 1] = before
end
return answer
