-- 3 the gateway, 4.. sessions' ids; answers which of them were granted to it, by their places
if not head() then return GONE end
local wanted, found = ' ' .. ARGV[3] .. ' ', {}
for place = 4, #ARGV do
  local gateways = redis.call('HGET', session_key(ARGV[place]), 'gateways')
  if gateways and string.find(' ' .. gateways .. ' ', wanted, 1, true) then found[#found + 1] = place - 4 end
end
return found
