-- 3 the player's id, 4 the idle timeout in ms
local h = head()
if not h then return GONE end
local id, at = ARGV[3], now()
local generation = redis.call('HGET', player_key(id), 'generation')
if not generation then return {'unknown'} end
local live, broken = live_sessions(id, at, tonumber(ARGV[4]))
if broken then return broken end
local following, revision = revoke_player(id, generation, at, h)
return {'ended', following, revision, int(live)}
