-- archive_lease(log, groups, archive_lease; lease_owner, lease_ms) -> the position up to which every group has acknowledged, the last
--   position, the first position that the server holds; nothing while another process has the lease
--
-- Acquire or extend a tenant's archive lease. A registered group that is missing at the log needs the whole log.

local log, groups, archive_lease = KEYS[1], KEYS[2], KEYS[3]
local lease_owner, lease_ms = ARGV[1], ARGV[2]

local owner = redis.call('GET', archive_lease)
if owner and owner ~= lease_owner then return {} end
-- SREM first: a server whose memory is full refuses SET only until a script has written something.
redis.call('SREM', groups, '')
redis.call('SET', archive_lease, lease_owner, 'PX', lease_ms)
local last = last_position(log)
if last == 0 then return {'0', '0', '0'} end
local through, of_log = low_water(log), {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', log)) do of_log[info[2]] = true end
for _, group in ipairs(redis.call('SMEMBERS', groups)) do
  if not of_log[group] then through = 0 end
end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
return {whole(through), whole(last), oldest and string.match(oldest[1], '^%d+') or whole(last + 1)}
