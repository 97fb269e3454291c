-- 3 the gateway, 4.. sessions' ids; answers those that were granted to another gateway, by place and last activity in turn
if not head() then return GONE end
local here = redis.call('SMISMEMBER', granted_to(ARGV[3]), unpack(ARGV, 4))
local travelled = redis.call('SMISMEMBER', TRAVELLED, unpack(ARGV, 4))
local found = {}
for place, is_here in ipairs(here) do
  -- Nearly all were granted to this one alone.
  if is_here == 0 or travelled[place] == 1 then
    local s = redis.call('HMGET', session_key(ARGV[3 + place]), 'gateways', 'active_at')
    for gateway in string.gmatch(s[1] or '', '%S+') do
      if gateway ~= ARGV[3] then
        found[#found + 1] = place - 1
        found[#found + 1] = s[2]
        break
      end
    end
  end
end
return found
