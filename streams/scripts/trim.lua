-- trim(log, usage, archive_lease; lease_owner, after, first_body, through, last_body) -> 1 when trimmed; 0 when a group has not
--   acknowledged them all; -1 when the lease is lost; -2 when the log holds other records than the archive
--
-- Remove the records after a position up to `through`, which the archive has. The newest record always stays.

local log, usage, archive_lease = KEYS[1], KEYS[2], KEYS[3]
local lease_owner, after, first_body, through, last_body = unpack(ARGV)

-- body(position) -> the body of a record; all its fields when Penstock did not write it. As record_of in streams/log.py.
local function body(position)
  local id = position .. '-0'
  local entry = redis.call('XRANGE', log, id, id)[1]
  if not entry then return nil end
  local fields = entry[2]
  local has_our_fields = #fields == 6 and fields[1] == 'event' and fields[3] == 'received_at_us' and fields[5] == 'version'
  local has_numbers = has_our_fields and string.match(fields[4], '^%d+$') and #fields[4] <= 18
    and string.match(fields[6], '^%d+$') and #fields[6] <= 4
  return has_numbers and fields[2] or table.concat(fields, ' ')
end

if redis.call('GET', archive_lease) ~= lease_owner then return -1 end
local first = whole(tonumber(after) + 1)
if body(first) ~= first_body or body(through) ~= last_body then return -2 end
if low_water(log) < tonumber(through) or last_position(log) <= tonumber(through) then return 0 end
redis.call('XTRIM', log, 'MINID', '=', whole(tonumber(through) + 1) .. '-0')
redis.call('HSET', usage, 'archived', through)
return 1
