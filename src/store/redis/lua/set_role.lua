-- 3 the player's id, 4 the role; answers the one before
if not head() then return GONE end
local before = redis.call('HGET', player_key(ARGV[3]), 'role')
if not before then return {} end
redis.call('HSET', player_key(ARGV[3]), 'role', ARGV[4])
return {before}
