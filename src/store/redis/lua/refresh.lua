-- The rule of rotation (store/rotation.rs tells it) and its change, in one step on one clock: so two sidecars whose clocks differ
-- neither make two successors nor take a lost answer that is asked for again for reuse.
--
-- 3 the session's id, 4 the generation presented, 5 the player generation presented, 6 its last activity as far as this sidecar knows,
-- 7 the idle timeout in ms, 8 the grace in ms
local h = head()
if not h then return GONE end
local f, broken = find(ARGV[3])
if broken then return broken end
if not f then return {'ended', ''} end
local at, idle = now(), tonumber(ARGV[7])
if tonumber(ARGV[6]) > tonumber(f.active_at) then f.active_at = ARGV[6] end
local presented, newest = tonumber(ARGV[4]), tonumber(f.generation)
if tonumber(ARGV[5]) ~= tonumber(f.player_generation) or presented > newest then return {'ended', ''} end
local over = ended(f, at, idle)
if presented == newest then
  if over then return {'ended', over} end
  f.generation, f.rotated_at, f.rotated_role = int(newest + 1), int(at), f.role
  redis.call('HSET', session_key(f.id), 'generation', f.generation, 'rotated_at', f.rotated_at, 'rotated_role', f.rotated_role)
  return {'rotated', row(f, h)}
end
if presented + 1 == newest and at < tonumber(f.rotated_at) + tonumber(ARGV[8]) then
  if over then return {'ended', over} end
  return {'again', row(f, h)}
end
-- Reuse is told once, by the step that ends the session for it.
if over == 'r' or over == 'a' then return {'ended', over} end
return {'reused', revoke(f, at, h)}
