-- Takes away those whose lease has run out, and answers what is known of the others, in the order of their ids.
if not head() then return GONE end
local leases, at = P .. 'leases', now()
for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', int(at))) do
  redis.call('DEL', P .. 'gateway:' .. gateway)
  redis.call('ZREM', leases, gateway)
end
local ids = redis.call('ZRANGE', leases, 0, -1)
table.sort(ids)
local records = {}
for _, gateway in ipairs(ids) do
  local record = redis.call('HMGET', P .. 'gateway:' .. gateway, 'sidecar', 'record')
  if record[1] then records[#records + 1] = record end
end
return records
