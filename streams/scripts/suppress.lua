-- suppress(suppressed, dedup_key...; salt, then for each identity: salted name, position, hash_parts) -> how many are suppressed
--
-- From now on append answers `duplicate` to these identities. The first identities have a dedup key: they are removed from it. Names
-- of another salt than the log's are useless and are removed.

local suppressed, salt = KEYS[1], ARGV[1]

if redis.call('HGET', suppressed, 'salt') ~= salt then
  redis.call('UNLINK', suppressed)
  redis.call('HSET', suppressed, 'salt', salt)
end

-- without(value, hash_parts) -> the value of a dedup key, like "12/9f86d081884c7d65/4.9 77/60303ae22b998861/5.8", without the entry
-- of these hash_parts
local function without(value, hash_parts)
  local entries = {}
  for entry, entry_parts in string.gmatch(value, '(%d+/%x+/([^ ]+))') do
    if entry_parts ~= hash_parts then entries[#entries + 1] = entry end
  end
  return table.concat(entries, ' ')
end

for i = 2, #ARGV, 3 do
  local name, position, hash_parts = unpack(ARGV, i, i + 2)
  redis.call('HSETNX', suppressed, name, position)
  local dedup_key = KEYS[2 + (i - 2) / 3]
  local value = dedup_key and redis.call('GET', dedup_key)
  if value then
    local remaining = without(value, hash_parts)
    if remaining == '' then
      redis.call('UNLINK', dedup_key)
    elseif remaining ~= value then
      redis.call('SET', dedup_key, remaining, 'PX', whole(redis.call('PTTL', dedup_key)))
    end
  end
end
return redis.call('HLEN', suppressed) - 1
