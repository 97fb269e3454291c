-- 3 the account, 4 the id of a player whom there never is, 5 what could stand for a password; answers whether it is somebody ('1'), the
-- player, the generation, the password and the accounts
--
-- Nobody's account takes as long as somebody's: as many looks, and an answer of the same shape, that is read and thrown away.
if not head() then return GONE end
local owner = redis.call('GET', account_key(ARGV[3]))
local player = owner or ARGV[4]
local p = redis.call('HMGET', player_key(player), 'generation', 'password')
local accounts = redis.call('LRANGE', accounts_of(player), 0, -1)
if owner and not p[1] then return damaged('players') end
if owner then return {'1', player, p[1], p[2] or '', accounts} end
return {'', player, '0', ARGV[5], {ARGV[3]}}
