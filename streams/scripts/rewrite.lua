-- rewrite(log, copy, archiving; lease_owner, after, through, erased, limit, limit_bytes, position...) -> the last id copied; 'done', when
-- the copy has taken the place of the log; 'gone', without a log; 'moved', when somebody removed entries meanwhile; 'taken', by another
--
-- Entries cannot be changed, so a log is copied, a stretch a call, with others in the place of those that are erased. `after` is
-- the last id before, '-' at first; the positions to erase of this stretch lie up to `through`. With the last stretch, in the
-- same act, the copy becomes the log: no append falls between. Groups go on behind what they acknowledged.

local log, copy, archiving = unpack(KEYS)
local lease_owner, after, through, erased, limit, limit_bytes = unpack(ARGV, 1, 6)

if redis.call('GET', archiving) ~= lease_owner then return 'taken' end
if last_position(log) == 0 then
  redis.call('UNLINK', copy)
  return 'gone'
end
if after == '-' then redis.call('UNLINK', copy) end -- what a run that was killed left

local chosen = {}
for i = 7, #ARGV do chosen[ARGV[i] .. '-0'] = true end

-- When an entry was received, if it says so.
local function received_at_us(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'received_at_us' and string.match(fields[i + 1], '^%d+$') and #fields[i + 1] <= 18 then return fields[i + 1] end
  end
  return '0'
end

local copied, bytes = after, 0
local entries = redis.call('XRANGE', log, after == '-' and '-' or '(' .. after, '+', 'COUNT', limit)
for i, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  if tonumber(string.match(id, '^%d+')) > tonumber(through) or bytes > tonumber(limit_bytes) then return copied end
  if chosen[id] then
    redis.call('XADD', copy, id, 'event', erased, 'received_at_us', received_at_us(fields), 'version', '2')
  else
    redis.call('XADD', copy, id, unpack(fields))
  end
  for _, field in ipairs(fields) do bytes = bytes + #field end
  copied = id
end
if #entries == tonumber(limit) then return copied end

local held = redis.call('XLEN', log)
if held == 0 then return 'done' end -- somebody removed them all
if redis.call('XLEN', copy) ~= held then
  redis.call('UNLINK', copy)
  return 'moved'
end
local info = redis.call('XINFO', 'STREAM', log)
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then redis.call('XSETID', copy, info[i + 1]) end
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
  local field = {}
  for i = 1, #group, 2 do field[group[i]] = group[i + 1] end
  local id = field['last-delivered-id']
  if field['pending'] > 0 then
    local lowest = redis.call('XPENDING', log, field['name'])[2]
    id = whole(tonumber(string.match(lowest, '^%d+')) - 1) .. '-0'
  end
  redis.call('XGROUP', 'CREATE', copy, field['name'], id)
end
redis.call('UNLINK', log)
redis.call('RENAME', copy, log)
return 'done'
