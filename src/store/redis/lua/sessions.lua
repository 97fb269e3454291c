-- 3 the player ('': everybody's), 4 the id before which to begin ('': at the newest), 5 how many
local h = head()
if not h then return GONE end
local index = P .. 'sessions'
if ARGV[3] ~= '' then index = sessions_of(ARGV[3]) end
local before = '+'
if ARGV[4] ~= '' then before = '(' .. ARGV[4] end
local rows = {}
for _, id in ipairs(redis.call('ZRANGE', index, before, '-', 'BYLEX', 'REV', 'LIMIT', 0, tonumber(ARGV[5]))) do
  local f, broken = find(id)
  if broken then return broken end
  if not f then return damaged('sessions') end
  rows[#rows + 1] = row(f, h)
end
return rows
