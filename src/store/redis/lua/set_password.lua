-- 3 the account, 4 an id for the player if it is new, 5 the role of new players, 6 what stands for the password, 7 the idle timeout in ms
local h = head()
if not h then return GONE end
local account, at = ARGV[3], now()
local player = redis.call('GET', account_key(account))
local is_new = not player
local generation, live, broken = '0', 0, nil
if is_new then
  player = ARGV[4]
  if redis.call('EXISTS', player_key(player)) == 1 then return {'taken'} end
else
  generation = redis.call('HGET', player_key(player), 'generation')
  if not generation then return damaged('players') end
  live, broken = live_sessions(player, at, tonumber(ARGV[7]))
  if broken then return broken end
end
if is_new then make_player(player, account, ARGV[5], at) end
local following, revision = revoke_player(player, generation, at, h)
redis.call('HSET', player_key(player), 'password', ARGV[6])
return {is_new and 'new' or 'known', player, following, revision, int(live)}
