-- 3 the session's id
local h = head()
if not h then return GONE end
local f, broken = find(ARGV[3])
if broken then return broken end
if not f then return {'unknown', '0'} end
local earlier = revocation(f)
if earlier then return {'already', earlier} end
local at = now()
if at >= tonumber(f.ends_at) then return {'already', '0'} end
return {'ended', revoke(f, at, h)}
