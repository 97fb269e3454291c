-- 3 the keyed hash of the account, 4 that of the place, 5 how many places are remembered, 6 for how long in ms
if not head() then return GONE end
local name, at = 'places:' .. ARGV[3], now()
local known = redis.call('HMGET', P .. name, 'places', 'expires_at')
local others = {}
if known[1] and at < tonumber(known[2]) then
  for from = 1, #known[1], 16 do
    local place = string.sub(known[1], from, from + 15)
    if place ~= ARGV[4] then others[#others + 1] = place end
  end
end
while #others >= tonumber(ARGV[5]) do table.remove(others, 1) end
others[#others + 1] = ARGV[4]
local expires = at + tonumber(ARGV[6])
redis.call('HSET', P .. name, 'places', table.concat(others), 'expires_at', int(expires))
keep_until(name, at, expires)
return 1
