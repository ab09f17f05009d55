-- lease(ready, leases; group, lease_owner, lease_ms, records, log_prefix) -> for each tenant: tenant, when it was due in ms, last
--   position, the group's last delivered position (-1 without the group), pending deliveries, bytes of its newest entry
--
-- Lease the tenants that are due, oldest first, until they hold about that many undelivered records. The score of a leased tenant
-- is the end of its lease.

local ready, leases = KEYS[1], KEYS[2]
local group, lease_owner, lease_ms, records, log_prefix = unpack(ARGV)
local now = now_ms()
local records_left = tonumber(records)
local answer = {}

-- progress(log) -> the group's last delivered position, and how many of its deliveries are pending
local function progress(log)
  local groups = redis.pcall('XINFO', 'GROUPS', log)
  if groups.err then return -1, 0 end
  for _, info in ipairs(groups) do
    local fields = fields_of(info)
    if fields['name'] == group then return tonumber(string.match(fields['last-delivered-id'], '^%d+')), fields['pending'] end
  end
  return -1, 0
end

-- newest_bytes(log) -> the bytes of the newest entry, 0 without entries
local function newest_bytes(log)
  local entry = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return entry and #table.concat(entry[2]) or 0
end

local due = redis.call('ZRANGEBYSCORE', ready, '-inf', whole(now), 'WITHSCORES', 'LIMIT', 0, 256)
for i = 1, #due, 2 do
  if records_left <= 0 then break end
  local tenant = due[i]
  local log = log_prefix .. tenant
  -- HDEL first: a server whose memory is full refuses ZADD and HSET only until a script has written something.
  redis.call('HDEL', leases, tenant)
  redis.call('ZADD', ready, 'XX', whole(now + lease_ms), tenant)
  redis.call('HSET', leases, tenant, lease_owner)
  local last = last_position(log)
  local delivered, pending = progress(log)
  records_left = records_left - math.max(last - math.max(delivered, 0), 1)
  answer[#answer + 1] = {
    tenant, whole(tonumber(due[i + 1])), whole(last), whole(delivered), pending, last > 0 and newest_bytes(log) or 0
  }
end
return answer
