-- A sidecar has connected: makes the data set if there is none, and sees whether the log is still the one that it knows.
--
-- 3 the server's run id, 4 the layout that the program understands, 5 the lineage that the sidecar knows ('': none yet), 6 the head that it
-- has seen, 7 the event there ('': not known), 8 a lineage just drawn
--
-- Whatever was lost was lost with a restart or a switch to another server (a restored backup, a replica), or with the data set: each
-- shows, in the run id, in a head that went back, or in another event at the head that was seen. The first sidecar that sees it draws the
-- new lineage, and the others find theirs outdated.
local state = P .. 'log:state'
local known = redis.call('HMGET', state, 'layout', 'lineage', 'head', 'tail', 'server')
if not known[1] then
  -- Left over from a data set of which the rest is gone.
  redis.call('DEL', P .. 'log')
  redis.call('HSET', state, 'layout', ARGV[4], 'lineage', ARGV[8], 'head', '0', 'tail', '0', 'server', ARGV[3])
  return {'made', ARGV[8], '0', '0'}
end
if known[1] ~= ARGV[4] then return {'layout', known[1], '0', '0'} end
local lineage, h, tail = known[2], known[3], known[4]
local seen = tonumber(ARGV[6])
local lost = known[5] ~= ARGV[3]
if not lost and lineage == ARGV[5] and seen > 0 then
  lost = tonumber(h) < seen
  if not lost and ARGV[7] ~= '' and seen > tonumber(tail) then
    local there = redis.call('XRANGE', P .. 'log', ARGV[6] .. '-0', ARGV[6] .. '-0')
    lost = #there == 0 or there[1][2][2] ~= ARGV[7]
  end
end
if lost then
  lineage = ARGV[8]
  redis.call('HSET', state, 'lineage', lineage, 'server', ARGV[3])
end
return {lost and 'lost' or 'same', lineage, h, tail}
