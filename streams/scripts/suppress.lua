-- forget(suppressed, seen...; salt, then for each name: salted name, position, hash_parts) -> how many there are now
--
-- From here on the door answers `duplicate` for these names. Each that has a `seen` key loses its claim there. Names with
-- another salt than the notes in the log have are of no use, and go.

local suppressed, salt = KEYS[1], ARGV[1]

if redis.call('HGET', suppressed, 'salt') ~= salt then
  redis.call('UNLINK', suppressed)
  redis.call('HSET', suppressed, 'salt', salt)
end

-- A value like "12/9f86d081884c7d65/4.9 77/60303ae22b998861/5.8", without the claim of this hash_parts.
local function without(value, hash_parts)
  local rest = {}
  for claim, claimed in string.gmatch(value, '(%d+/%x+/([^ ]+))') do
    if claimed ~= hash_parts then rest[#rest + 1] = claim end
  end
  return table.concat(rest, ' ')
end

for i = 2, #ARGV, 3 do
  local name, position, hash_parts = unpack(ARGV, i, i + 2)
  redis.call('HSETNX', suppressed, name, position)
  local seen = KEYS[2 + (i - 2) / 3]
  local value = seen and redis.call('GET', seen)
  if value then
    local rest = without(value, hash_parts)
    if rest == '' then
      redis.call('UNLINK', seen)
    elseif rest ~= value then
      redis.call('SET', seen, rest, 'PX', whole(redis.call('PTTL', seen)))
    end
  end
end
return redis.call('HLEN', suppressed) - 1
