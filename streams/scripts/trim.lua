-- trim(log, usage, archiving; lease_owner, after, first body, through, last body) -> 1 when trimmed, 0 when somebody needs them
-- still, -1 when this is not the lease_owner any more, -2 when the log holds other records than the segment
--
-- Removes the records from `after` + 1 to `through`, which an archive has. What was not acknowledged by every group stays.

local log, usage, archiving = KEYS[1], KEYS[2], KEYS[3]
local lease_owner, after, first_body, through, last_body = unpack(ARGV)

-- The body of the record at a position; all its fields when Penstock did not write it so.
local function body(position)
  local id = position .. '-0'
  local entry = redis.call('XRANGE', log, id, id)[1]
  if not entry then return nil end
  local fields = entry[2]
  local ours = #fields == 6 and fields[1] == 'event' and fields[3] == 'received_at_us' and fields[5] == 'version'
  local fits = ours and string.match(fields[4], '^%d+$') and #fields[4] <= 18 and string.match(fields[6], '^%d+$') and #fields[6] <= 4
  return fits and fields[2] or table.concat(fields, ' ')
end

if redis.call('GET', archiving) ~= lease_owner then return -1 end
local first = whole(tonumber(after) + 1)
if body(first) ~= first_body or body(through) ~= last_body then return -2 end
if low_water(log) < tonumber(through) or last_position(log) <= tonumber(through) then return 0 end
redis.call('XTRIM', log, 'MINID', '=', whole(tonumber(through) + 1) .. '-0')
redis.call('HSET', usage, 'archived', through)
return 1
