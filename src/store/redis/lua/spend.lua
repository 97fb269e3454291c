-- 3 its keyed hash, 4 the number of what it is presented for; answers the outcome, and what it brings
if not head() then return GONE end
local key = P .. 'one-time:' .. ARGV[3]
local entry = redis.call('HMGET', key, 'purpose', 'used', 'expires_at', 'payload')
if not entry[1] then return {'unknown', ''} end
if entry[1] ~= ARGV[4] then return {'wrong_purpose', ''} end
if entry[2] then return {'already_used', ''} end
if now() >= tonumber(entry[3]) then return {'expired', ''} end
redis.call('HSET', key, 'used', '1')
-- What it brought is not needed again.
redis.call('HDEL', key, 'payload')
return {'spent', entry[4]}
