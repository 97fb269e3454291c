-- 3 the margin after sessions' ends in ms, 4 the retention of events in ms, 5 how many of each at most; answers how many of each went,
-- and the log's tail
local h = head()
if not h then return GONE end
local at, most = now(), tonumber(ARGV[5])
local ends = P .. 'ends'
local over = redis.call('ZRANGEBYSCORE', ends, '-inf', '(' .. int(at - tonumber(ARGV[3])), 'LIMIT', 0, most)
for _, id in ipairs(over) do
  local s = redis.call('HMGET', session_key(id), 'player', 'gateways')
  if s[1] then redis.call('ZREM', sessions_of(s[1]), id) end
  for gateway in string.gmatch(s[2] or '', '%S+') do redis.call('SREM', granted_to(gateway), id) end
  redis.call('SREM', TRAVELLED, id)
  redis.call('SREM', REVOKED, id)
  redis.call('ZREM', P .. 'sessions', id)
  redis.call('DEL', session_key(id))
  redis.call('ZREM', ends, id)
end
local old, last = 0, nil
local before = at - tonumber(ARGV[4])
for _, entry in ipairs(redis.call('XRANGE', P .. 'log', '-', '+', 'COUNT', most)) do
  if tonumber(entry[2][4]) >= before then break end
  old, last = old + 1, string.match(entry[1], '^%d+')
end
if last then
  redis.call('XTRIM', P .. 'log', 'MINID', int(tonumber(last) + 1) .. '-0')
  redis.call('HSET', P .. 'log:state', 'tail', last)
end
return {#over, old, redis.call('HGET', P .. 'log:state', 'tail')}
