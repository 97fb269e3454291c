-- 3 the gateway, 4.. sessions' ids; answers those that were granted to another gateway, by place and last activity in turn
if not head() then return GONE end
local found = {}
for place = 4, #ARGV do
  local s = redis.call('HMGET', session_key(ARGV[place]), 'gateways', 'active_at')
  for gateway in string.gmatch(s[1] or '', '%S+') do
    if gateway ~= ARGV[3] then
      found[#found + 1] = place - 4
      found[#found + 1] = s[2]
      break
    end
  end
end
return found
