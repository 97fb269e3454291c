-- 3 how long what has expired is kept in ms, 4 how many at most; answers how many went, or had gone by themselves
if not head() then return GONE end
local before = '(' .. int(now() - tonumber(ARGV[3]))
local over = redis.call('ZRANGEBYSCORE', EXPIRING, '-inf', before, 'LIMIT', 0, tonumber(ARGV[4]))
for _, name in ipairs(over) do forget(name) end
return #over
