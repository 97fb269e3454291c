-- 3.. sessions' ids; answers which of them are dead, by their places. Idle ones are not: see Store::dead_among.
if not head() then return GONE end
local at, dead = now(), {}
for place = 3, #ARGV do
  local f, broken = find(ARGV[place])
  if broken then return broken end
  if not f or revocation(f) or at >= tonumber(f.ends_at) then dead[#dead + 1] = place - 3 end
end
return dead
