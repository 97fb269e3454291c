-- 3 the keyed hash of what it is for, 4 that of the code, 5 how many guesses there are, 6 how long it is worth something in ms
if not head() then return GONE end
local name, at = 'code:' .. ARGV[3], now()
local expires = at + tonumber(ARGV[6])
redis.call('HSET', P .. name, 'hash', ARGV[4], 'tries', ARGV[5], 'expires_at', int(expires))
keep_until(name, at, expires)
return 1
