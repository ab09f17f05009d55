-- shared: functions for all scripts. This file is put before the text of each script.

-- last_position(log) -> the position of the newest record; 0 for a log that has none or is not a stream.
-- The stream's own last-generated-id is the counter: it cannot be half written, and it stays when entries are removed.
local function last_position(log)
  if redis.call('TYPE', log).ok ~= 'stream' then return 0 end
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return tonumber(string.match(info[i + 1], '^%d+')) end
  end
end

-- now_ms() -> the server's clock in milliseconds. The clocks of several machines need not agree.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- whole(number) -> its digits. Lua would write 1e+14.
local function whole(number)
  return string.format('%.0f', number)
end

-- fields_of(list) -> the table of a flat list: name, value, name, value ...
local function fields_of(list)
  local fields = {}
  for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
  return fields
end

-- acknowledged(log, group), with what XINFO says of a group -> its name, and the position up to which it has acknowledged
local function acknowledged(log, group)
  local fields = fields_of(group)
  local through = tonumber(string.match(fields['last-delivered-id'], '^%d+'))
  if fields['pending'] > 0 then
    local pending = redis.call('XPENDING', log, fields['name'])
    through = math.min(through, tonumber(string.match(pending[2], '^%d+')) - 1)
  end
  return fields['name'], through
end

-- low_water(log) -> the position up to which every group of a log has acknowledged; 0 without groups, which may have been lost
local function low_water(log)
  local groups = redis.call('XINFO', 'GROUPS', log)
  local through = #groups > 0 and last_position(log) or 0
  for _, group in ipairs(groups) do
    local _, of_group = acknowledged(log, group)
    through = math.min(through, of_group)
  end
  return through
end

-- wake(log, tenants, groups, tenant, ready_prefix, partition, channel, is_new)
-- Queue a tenant with new records for every group, and publish its partition to the projectors that wait. A new log gets the
-- registered groups, from its first record.
local function wake(log, tenants, groups, tenant, ready_prefix, partition, channel, is_new)
  redis.call('SADD', tenants, tenant)
  local queued = false
  for _, group in ipairs(redis.call('SMEMBERS', groups)) do
    if is_new then redis.pcall('XGROUP', 'CREATE', log, group, '0') end
    if redis.call('ZADD', ready_prefix .. group, 'NX', whole(now_ms()), tenant) == 1 then queued = true end
  end
  if queued then redis.call('PUBLISH', channel, partition) end
end

-- remember(dedup_key, position, digest, hash_parts, remaining_ms)
-- Add an event to a dedup key, unless an event of these hash_parts stands there. A value is like
-- "12/9f86d081884c7d65/4.9 77/60303ae22b998861/5.8".
local function remember(dedup_key, position, digest, hash_parts, remaining_ms)
  local value = redis.call('GET', dedup_key)
  for other_parts in string.gmatch(value or '', '%d+/%x+/([^ ]+)') do
    if other_parts == hash_parts then return end
  end
  local entry = position .. '/' .. digest .. '/' .. hash_parts
  local longest_ms = math.max(tonumber(remaining_ms), value and redis.call('PTTL', dedup_key) or 0)
  redis.call('SET', dedup_key, value and (value .. ' ' .. entry) or entry, 'PX', whole(longest_ms))
end
