-- append(log, tenants, groups, seen...; tenant, ready prefix, partition, channel, received_at_us, window_ms,
--        then for each event: digest, split, body) -> for each event: outcome, position
--
-- Claim and append, one atomic act. Outcomes: 1 accepted, 2 duplicate, 3 conflict.
-- A script isolates but does not roll back, so the log is written first: a claim without its event would tell the
-- client's retry "duplicate" of something that was never written.

local log, tenants, groups = KEYS[1], KEYS[2], KEYS[3]
local tenant, ready_prefix, partition, channel, received_at_us, window_ms = unpack(ARGV, 1, 6)

-- The first event of this name and split, from a value like "12/9f86d081884c7d65/4.9 77/60303ae22b998861/5.8".
local function find(value, wanted)
  for position, digest, split in string.gmatch(value, '(%d+)/(%x+)/([^ ]+)') do
    if split == wanted then return position, digest end
  end
end

local last = last_position(log)
local first = last + 1
local answer = {}

for i = 4, #KEYS do
  local digest, split, body = unpack(ARGV, 7 + (i - 4) * 3, 9 + (i - 4) * 3)
  local value = redis.call('GET', KEYS[i])
  local position, seen_digest
  if value then position, seen_digest = find(value, split) end
  if position then
    answer[#answer + 1] = seen_digest == digest and 2 or 3
    answer[#answer + 1] = position
  else
    last = last + 1
    position = whole(last)
    redis.call('XADD', log, position .. '-0', 'event', body, 'received_at_us', received_at_us, 'version', '1')
    local claim = position .. '/' .. digest .. '/' .. split
    redis.call('SET', KEYS[i], value and (value .. ' ' .. claim) or claim, 'PX', window_ms)
    answer[#answer + 1] = 1
    answer[#answer + 1] = position
  end
end

if last >= first then
  redis.call('SADD', tenants, tenant)
  local woken = false
  for _, group in ipairs(redis.call('SMEMBERS', groups)) do
    if first == 1 then redis.pcall('XGROUP', 'CREATE', log, group, '0') end
    if redis.call('ZADD', ready_prefix .. group, 'NX', whole(now_ms()), tenant) == 1 then woken = true end
  end
  if woken then redis.call('PUBLISH', channel, partition) end
end
return answer
