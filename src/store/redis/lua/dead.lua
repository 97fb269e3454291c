-- 3.. sessions' ids; answers which of them are dead, by their places. Idle ones are not: see Store::dead_among.
if not head() then return GONE end
local at, dead = now(), {}
local ends, revoked = redis.call('ZMSCORE', P .. 'ends', unpack(ARGV, 3)), redis.call('SMISMEMBER', REVOKED, unpack(ARGV, 3))
for place, is_revoked in ipairs(revoked) do
  local ends_at = ends[place]
  if not ends_at or at >= tonumber(ends_at) or is_revoked == 1 then dead[#dead + 1] = place - 1 end
end
return dead
