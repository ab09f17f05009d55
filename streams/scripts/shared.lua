-- Shared by the scripts: what a log says of itself.

-- last_position(log) -> the position of the newest record, 0 for a log that has none or is no stream.
-- The stream's own last-generated-id is the counter: it cannot be half counted, and it survives the removal of entries.
local function last_position(log)
  if redis.call('TYPE', log).ok ~= 'stream' then return 0 end
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return tonumber(string.match(info[i + 1], '^%d+')) end
  end
end

-- now_ms() -> the server's clock, so that the clocks of many machines need not agree.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- whole(number) -> its digits; Lua would write 1e+14.
local function whole(number)
  return string.format('%.0f', number)
end

-- acknowledged(log, what XINFO says of a group) -> its name, and through which position it has acknowledged
local function acknowledged(log, info)
  local field = {}
  for i = 1, #info, 2 do field[info[i]] = info[i + 1] end
  local delivered = tonumber(string.match(field['last-delivered-id'], '^%d+'))
  if field['pending'] > 0 then
    local pending = redis.call('XPENDING', log, field['name'])
    delivered = math.min(delivered, tonumber(string.match(pending[2], '^%d+')) - 1)
  end
  return field['name'], delivered
end

-- low_water(log) -> through which position every group of a log has acknowledged; 0 without groups, which may have been lost
local function low_water(log)
  local groups = redis.call('XINFO', 'GROUPS', log)
  local through = #groups > 0 and last_position(log) or 0
  for _, info in ipairs(groups) do
    local _, delivered = acknowledged(log, info)
    through = math.min(through, delivered)
  end
  return through
end

-- wake(log, tenants, groups; tenant, ready prefix, partition, channel, is new) -- what was written is there to be read: the tenant is
-- listed and due for every group, a new log has them from its start, and projectors that wait hear of it
local function wake(log, tenants, groups, tenant, ready_prefix, partition, channel, is_new)
  redis.call('SADD', tenants, tenant)
  local woken = false
  for _, group in ipairs(redis.call('SMEMBERS', groups)) do
    if is_new then redis.pcall('XGROUP', 'CREATE', log, group, '0') end
    if redis.call('ZADD', ready_prefix .. group, 'NX', whole(now_ms()), tenant) == 1 then woken = true end
  end
  if woken then redis.call('PUBLISH', channel, partition) end
end

-- claim(seen key; position, digest, hash_parts, remaining_ms) -- an event is known by its name for so long, unless one of that name is.
-- A value is like "12/9f86d081884c7d65/4.9 77/60303ae22b998861/5.8".
local function claim(key, position, digest, hash_parts, remaining_ms)
  local value = redis.call('GET', key)
  for claimed in string.gmatch(value or '', '%d+/%x+/([^ ]+)') do
    if claimed == hash_parts then return end
  end
  local added = position .. '/' .. digest .. '/' .. hash_parts
  local longest = math.max(tonumber(remaining_ms), value and redis.call('PTTL', key) or 0)
  redis.call('SET', key, value and (value .. ' ' .. added) or added, 'PX', whole(longest))
end
