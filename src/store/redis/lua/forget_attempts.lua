-- 3 the keyed hash of the account
if not head() then return GONE end
forget('attempts:' .. ARGV[3])
return 1
