-- 3 its keyed hash, 4 the number of what it is for, 5 what it brings, 6 how long it is worth something in ms
if not head() then return GONE end
local name, at = 'one-time:' .. ARGV[3], now()
if redis.call('EXISTS', P .. name) == 1 then return 'collision' end
local expires = at + tonumber(ARGV[6])
redis.call('HSET', P .. name, 'purpose', ARGV[4], 'payload', ARGV[5], 'expires_at', int(expires))
keep_until(name, at, expires)
return 'issued'
