-- 3 the player's id, 4 the idle timeout in ms
local h = head()
if not h then return GONE end
local id, at = ARGV[3], now()
local generation = redis.call('HGET', player_key(id), 'generation')
if not generation then return {'unknown'} end
local live = 0
for _, session in ipairs(redis.call('ZRANGE', sessions_of(id), 0, -1)) do
  local f, broken = find(session)
  if broken then return broken end
  if f and not ended(f, at, tonumber(ARGV[4])) then live = live + 1 end
end
generation = int(tonumber(generation) + 1)
local revision = append('p' .. id .. ':' .. generation, at, h)
redis.call('HSET', player_key(id), 'generation', generation, 'revoked_revision', revision)
return {'ended', generation, revision, int(live)}
