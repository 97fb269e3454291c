-- 3 the revision after which to begin, 4 how many events (0: where the log stands, alone)
local state = redis.call('HMGET', P .. 'log:state', 'lineage', 'tail', 'head')
if not state[1] then return GONE end
local events = {}
local from, most = tonumber(ARGV[3]), tonumber(ARGV[4])
if most > 0 and from >= tonumber(state[2]) and from < tonumber(state[3]) then
  for _, entry in ipairs(redis.call('XRANGE', P .. 'log', '(' .. ARGV[3] .. '-0', '+', 'COUNT', most)) do
    events[#events + 1] = entry[2][2]
  end
end
return {state[1], state[2], state[3], events}
