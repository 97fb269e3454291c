-- 3 the session's id, 4 the gateway, 5 how many gateways a session remembers
if not head() then return GONE end
local id = ARGV[3]
local key = session_key(id)
if redis.call('EXISTS', key) == 0 then return 0 end
local granted = {}
for gateway in string.gmatch(redis.call('HGET', key, 'gateways') or '', '%S+') do
  if gateway == ARGV[4] then return 0 end
  granted[#granted + 1] = gateway
end
granted[#granted + 1] = ARGV[4]
redis.call('SADD', granted_to(ARGV[4]), id)
if #granted > 1 then redis.call('SADD', TRAVELLED, id) end
while #granted > tonumber(ARGV[5]) do redis.call('SREM', granted_to(table.remove(granted, 1)), id) end
redis.call('HSET', key, 'gateways', table.concat(granted, ' '))
return 1
