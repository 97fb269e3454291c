-- 3 the gateway, 4 its process, 5 how many processes are remembered, the newest among them; answers whether the process is the newest
if not head() then return GONE end
local key = P .. 'processes-of:' .. ARGV[3]
local place = redis.call('LPOS', key, ARGV[4])
if place then
  if place + 1 == redis.call('LLEN', key) then return 1 end
  return 0
end
redis.call('RPUSH', key, ARGV[4])
redis.call('LTRIM', key, -tonumber(ARGV[5]), -1)
return 1
