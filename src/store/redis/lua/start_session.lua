-- 3 the session's id, 4 an id for the player if the account is new, 5 the account, 6 the role of new players, 7 the method, 8 the session's
-- longest life in ms
local h = head()
if not h then return GONE end
local at = now()
local id, account = ARGV[3], ARGV[5]
if redis.call('EXISTS', session_key(id)) == 1 then return {'taken'} end
local player = redis.call('GET', account_key(account))
local is_new = not player
if is_new then
  player = ARGV[4]
  if redis.call('EXISTS', player_key(player)) == 1 then return {'taken'} end
else
  if redis.call('EXISTS', player_key(player)) == 0 then return damaged('players') end
end
local ends = int(at + tonumber(ARGV[8]))
local generation = '0'
if is_new then
  make_player(player, account, ARGV[6], at)
else
  generation = redis.call('HGET', player_key(player), 'generation')
end
redis.call('HSET', session_key(id), 'player', player, 'player_generation', generation, 'generation', '0', 'method', ARGV[7],
  'created_at', int(at), 'ends_at', ends, 'active_at', int(at))
redis.call('ZADD', P .. 'sessions', 0, id)
redis.call('ZADD', sessions_of(player), 0, id)
redis.call('ZADD', P .. 'ends', ends, id)
return {is_new and 'new' or 'known', row(find(id), h)}
