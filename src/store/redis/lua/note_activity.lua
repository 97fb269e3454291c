-- 3.. a session's id and when it was active, in turn; answers those that are not known or have ended, by their places
if not head() then return GONE end
local at, over = now(), {}
for i = 3, #ARGV, 2 do
  local key = session_key(ARGV[i])
  local s = redis.call('HMGET', key, 'active_at', 'ends_at', 'revoked_revision')
  local active = tonumber(ARGV[i + 1])
  -- A sidecar whose clock is ahead makes no session outlive its idleness.
  if ARGV[2] == '' and active > at then active = at end
  if not s[1] or s[3] or active >= tonumber(s[2]) then
    over[#over + 1] = (i - 3) / 2
  elseif active > tonumber(s[1]) then
    redis.call('HSET', key, 'active_at', int(active))
  end
end
return over
