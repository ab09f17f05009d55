-- page(log; first, records, bytes) -> entries from position first on, at most so many, and no more than hold so many bytes
--
-- XRANGE alone bounds entries only, and one may be a few bytes or 64 KiB.

local first, records, bytes = unpack(ARGV)
local left, size = tonumber(records), 0
local from = first .. '-0'
local answer = {}
while left > 0 do
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', math.min(left, 64))
  for _, entry in ipairs(entries) do
    size = size + #(entry[2][2] or '')
    if size > tonumber(bytes) and #answer > 0 then return answer end
    answer[#answer + 1] = entry
  end
  if #entries < math.min(left, 64) then return answer end
  left = left - #entries
  from = '(' .. entries[#entries][1]
end
return answer
