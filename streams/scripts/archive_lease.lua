-- cold(log, groups, archiving; lease_owner, lease_ms) -> through which position every group has acknowledged, the last position, the
-- first that the server holds; or nothing while another archives this log
--
-- Takes the tenant for one archiver. A group that is registered and has not begun needs the whole log.

local log, groups, archiving = KEYS[1], KEYS[2], KEYS[3]
local lease_owner, lease_ms = ARGV[1], ARGV[2]

local held = redis.call('GET', archiving)
if held and held ~= lease_owner then return {} end
redis.call('SET', archiving, lease_owner, 'PX', lease_ms)
local last = last_position(log)
if last == 0 then return {'0', '0', '0'} end
local through, begun = low_water(log), {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', log)) do begun[info[2]] = true end
for _, group in ipairs(redis.call('SMEMBERS', groups)) do
  if not begun[group] then through = 0 end
end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
return {whole(through), whole(last), oldest and string.match(oldest[1], '^%d+') or whole(last + 1)}
