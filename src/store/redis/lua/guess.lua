-- 3 the keyed hash of what the code is for, 4 that of the guess; answers the outcome, and how many guesses are left
--
-- What is compared are keyed hashes, and Lua compares texts by their place in memory: how long it takes tells nothing.
if not head() then return GONE end
local name = 'code:' .. ARGV[3]
local code = redis.call('HMGET', P .. name, 'hash', 'tries', 'expires_at')
if not code[1] then return {'unknown', '0'} end
if now() >= tonumber(code[3]) then return {'expired', '0'} end
if tonumber(code[2]) < 1 then return {'exhausted', '0'} end
if code[1] == ARGV[4] then
  forget(name)
  return {'right', '0'}
end
return {'wrong', redis.call('HINCRBY', P .. name, 'tries', -1)}
