-- 3 the player's id; answers the accounts that are the player; nil if there is no such player
if not head() then return GONE end
if redis.call('EXISTS', player_key(ARGV[3])) == 0 then return {} end
return {'known', redis.call('LRANGE', accounts_of(ARGV[3]), 0, -1)}
