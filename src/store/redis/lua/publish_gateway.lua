-- 3 the gateway, 4 its process, 5 the sidecar that it is attached to, 6 what is known of it, 7 the lease in ms, 8 '1' if it has just attached
-- there, '' if the lease is renewed
if not head() then return GONE end
local at = now()
local newest = redis.call('LINDEX', P .. 'processes-of:' .. ARGV[3], -1)
if newest ~= ARGV[4] then return 'fenced' end
local key = P .. 'gateway:' .. ARGV[3]
local published = redis.call('HMGET', key, 'process', 'sidecar')
local lease = redis.call('ZSCORE', P .. 'leases', ARGV[3])
local is_held = lease and tonumber(lease) > at
-- The same process has attached to another sidecar since: that one knows it better.
if ARGV[8] == '' and is_held and published[1] == ARGV[4] and published[2] ~= ARGV[5] then return 'elsewhere' end
redis.call('HSET', key, 'process', ARGV[4], 'sidecar', ARGV[5], 'record', ARGV[6])
redis.call('ZADD', P .. 'leases', int(at + tonumber(ARGV[7])), ARGV[3])
return 'published'
