-- take(ready, leases; group, lease_owner, lease_ms, records, log prefix) -> for each tenant: tenant, since when it was due
-- in milliseconds, last position, the group's last delivered position (-1 without the group), how many of its deliveries are
-- pending, the bytes of its newest entry
--
-- Takes the tenants that are due, oldest first, until they hold about as many undelivered records as wanted, by moving
-- their score one lease ahead.

local ready, leases = KEYS[1], KEYS[2]
local group, lease_owner, lease_ms, records, log_prefix = unpack(ARGV)
local now = now_ms()
local left = tonumber(records)
local answer = {}

-- What the group has delivered of a log, and what is pending of it.
local function delivered(log)
  local groups = redis.pcall('XINFO', 'GROUPS', log)
  if groups.err then return -1, 0 end
  for _, info in ipairs(groups) do
    local field = {}
    for i = 1, #info, 2 do field[info[i]] = info[i + 1] end
    if field['name'] == group then return tonumber(string.match(field['last-delivered-id'], '^%d+')), field['pending'] end
  end
  return -1, 0
end

-- The bytes of a log's newest entry, 0 if all are gone.
local function newest_bytes(log)
  local entry = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return entry and #table.concat(entry[2]) or 0
end

local due = redis.call('ZRANGEBYSCORE', ready, '-inf', whole(now), 'WITHSCORES', 'LIMIT', 0, 256)
for i = 1, #due, 2 do
  if left <= 0 then break end
  local tenant = due[i]
  local log = log_prefix .. tenant
  -- HDEL first: a server whose memory is full refuses ZADD and HSET only until a script has written something.
  redis.call('HDEL', leases, tenant)
  redis.call('ZADD', ready, 'XX', whole(now + lease_ms), tenant)
  redis.call('HSET', leases, tenant, lease_owner)
  local last = last_position(log)
  local through, pending = delivered(log)
  left = left - math.max(last - math.max(through, 0), 1)
  answer[#answer + 1] = {
    tenant, whole(tonumber(due[i + 1])), whole(last), whole(through), pending, last > 0 and newest_bytes(log) or 0
  }
end
return answer
