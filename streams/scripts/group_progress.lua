-- group_progress(log;) -> the last position, then for each group of the log: its name, the position up to which it has acknowledged

local log = KEYS[1]
local last = last_position(log)
local answer = {whole(last)}
if last == 0 then return answer end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
  local name, through = acknowledged(log, group)
  answer[#answer + 1] = name
  answer[#answer + 1] = whole(through)
end
return answer
