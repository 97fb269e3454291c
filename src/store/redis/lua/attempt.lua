-- 3 the keyed hash of the account, 4 how many attempts there may be in a row, 5 how long they are remembered if no other follows in ms;
-- answers how many there have been with this one, or 0 if there may be no other
if not head() then return GONE end
local name, at = 'attempts:' .. ARGV[3], now()
local made = redis.call('HMGET', P .. name, 'count', 'expires_at')
local count = 0
if made[1] and at < tonumber(made[2]) then count = tonumber(made[1]) end
if count >= tonumber(ARGV[4]) then return 0 end
local expires = at + tonumber(ARGV[5])
redis.call('HSET', P .. name, 'count', int(count + 1), 'expires_at', int(expires))
keep_until(name, at, expires)
return count + 1
