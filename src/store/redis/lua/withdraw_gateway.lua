-- 3 the gateway, 4 its process, 5 the sidecar that it was attached to
if not head() then return GONE end
local key = P .. 'gateway:' .. ARGV[3]
local published = redis.call('HMGET', key, 'process', 'sidecar')
if published[1] == ARGV[4] and published[2] == ARGV[5] then
  redis.call('DEL', key)
  redis.call('ZREM', P .. 'leases', ARGV[3])
  return 1
end
return 0
