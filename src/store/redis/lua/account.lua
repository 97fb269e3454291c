-- 3 the account
if not head() then return GONE end
local player = redis.call('GET', account_key(ARGV[3]))
if not player then return {} end
local p = redis.call('HMGET', player_key(player), 'generation', 'password')
if not p[1] then return damaged('players') end
return {player, p[1], p[2] or '', redis.call('LRANGE', accounts_of(player), 0, -1)}
