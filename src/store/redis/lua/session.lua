-- 3 the session's id
local h = head()
if not h then return GONE end
local f, broken = find(ARGV[3])
if broken then return broken end
if not f then return {} end
return row(f, h)
