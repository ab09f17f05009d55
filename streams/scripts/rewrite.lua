-- rewrite(log, copy, archive_lease; lease_owner, after, through, erased, limit, limit_bytes, position...) -> the last id copied; or
--   'done' when the copy has become the log, 'missing' without a log, 'moved' when entries left the log meanwhile, 'taken' when
--   another process has the lease
--
-- Copy a part of a log, with the body `erased` at each of the positions, because an entry cannot be changed. `after` is the last id
-- before the part, '-' at first; the positions lie up to `through`. The call that copies the last part also makes the copy the log, so
-- no append falls between. Groups go on after what they acknowledged.

local log, copy, archive_lease = unpack(KEYS)
local lease_owner, after, through, erased, limit, limit_bytes = unpack(ARGV, 1, 6)

if redis.call('GET', archive_lease) ~= lease_owner then return 'taken' end
if last_position(log) == 0 then
  redis.call('UNLINK', copy)
  return 'missing'
end
if after == '-' then redis.call('UNLINK', copy) end -- left by a process that was killed

local to_erase = {}
for i = 7, #ARGV do to_erase[ARGV[i] .. '-0'] = true end

-- received_at_us(fields) -> when an entry was received, '0' where it does not say so
local function received_at_us(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'received_at_us' and string.match(fields[i + 1], '^%d+$') and #fields[i + 1] <= 18 then return fields[i + 1] end
  end
  return '0'
end

local copied, bytes = after, 0
local entries = redis.call('XRANGE', log, after == '-' and '-' or '(' .. after, '+', 'COUNT', limit)
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  if tonumber(string.match(id, '^%d+')) > tonumber(through) or bytes > tonumber(limit_bytes) then return copied end
  if to_erase[id] then
    redis.call('XADD', copy, id, 'event', erased, 'received_at_us', received_at_us(fields), 'version', '2')
  else
    redis.call('XADD', copy, id, unpack(fields))
  end
  for _, field in ipairs(fields) do bytes = bytes + #field end
  copied = id
end
if #entries == tonumber(limit) then return copied end

local held = redis.call('XLEN', log)
if held == 0 then return 'done' end -- all entries were removed meanwhile
if redis.call('XLEN', copy) ~= held then
  redis.call('UNLINK', copy)
  return 'moved'
end
redis.call('XSETID', copy, fields_of(redis.call('XINFO', 'STREAM', log))['last-generated-id'])
for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
  local fields = fields_of(group)
  local id = fields['last-delivered-id']
  if fields['pending'] > 0 then
    local lowest = redis.call('XPENDING', log, fields['name'])[2]
    id = whole(tonumber(string.match(lowest, '^%d+')) - 1) .. '-0'
  end
  redis.call('XGROUP', 'CREATE', copy, fields['name'], id)
end
redis.call('UNLINK', log)
redis.call('RENAME', copy, log)
return 'done'
