-- 3 the keyed hash of the account, 4 that of the place; answers until when it is remembered, or 0
--
-- An account that nothing is known of is looked through as one that is, so that how long it takes does not tell which it is.
if not head() then return GONE end
local known = redis.call('HMGET', P .. 'places:' .. ARGV[3], 'places', 'expires_at')
local places, expires = known[1] or string.rep('\0', 128), tonumber(known[2] or '0')
local found = false
for at = 1, #places, 16 do
  if string.sub(places, at, at + 15) == ARGV[4] then found = true end
end
if found and now() < expires then return int(expires) end
return '0'
