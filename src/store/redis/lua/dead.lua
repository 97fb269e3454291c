-- 3.. sessions' ids; answers which of them are dead, by their places. Idle ones are not: see Store::dead_among.
if not head() then return GONE end
local at, dead, generations = now(), {}, {}
for place = 3, #ARGV do
  local s = redis.call('HMGET', session_key(ARGV[place]), 'player', 'player_generation', 'ends_at', 'revoked_revision')
  local is_dead = not s[1] or s[4] or at >= tonumber(s[3])
  if not is_dead then
    local current = generations[s[1]]
    if not current then
      current = redis.call('HGET', player_key(s[1]), 'generation')
      if not current then return damaged('players') end
      generations[s[1]] = current
    end
    is_dead = tonumber(s[2]) < tonumber(current)
  end
  if is_dead then dead[#dead + 1] = place - 3 end
end
return dead
