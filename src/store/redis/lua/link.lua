-- 3 the account, 4 how all accounts of its provider begin, 5 the session in which it is asked for, 6 how it joins the others: 'beside' them,
-- as the 'only' one of its provider, or 'instead' of those, 7 how many accounts a player may have
if not head() then return GONE end
local account, start = ARGV[3], ARGV[4]
local asking, broken = find(ARGV[5])
if broken then return broken end
if not asking or revocation(asking) then return 'outdated' end
local player = asking.player
local owner = redis.call('GET', account_key(account))
if owner == player then return 'already' end
if owner then return 'taken' end
local all, alike = redis.call('LRANGE', accounts_of(player), 0, -1), {}
for _, other in ipairs(all) do
  if string.sub(other, 1, #start) == start then alike[#alike + 1] = other end
end
if ARGV[6] == 'only' and #alike > 0 then return 'has_one' end
if ARGV[6] ~= 'instead' then alike = {} end
if #all - #alike >= tonumber(ARGV[7]) then return 'too_many' end
redis.call('SET', account_key(account), player)
redis.call('RPUSH', accounts_of(player), account)
for _, other in ipairs(alike) do
  redis.call('DEL', account_key(other))
  redis.call('LREM', accounts_of(player), 0, other)
end
return 'linked'
