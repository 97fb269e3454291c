-- 3 the gateway, 4.. sessions' ids; answers which of them were granted to it, by their places
if not head() then return GONE end
local found = {}
for place, is_granted in ipairs(redis.call('SMISMEMBER', granted_to(ARGV[3]), unpack(ARGV, 4))) do
  if is_granted == 1 then found[#found + 1] = place - 1 end
end
return found
