-- 3 the account, 4 the session in which it is asked for, 5 '1' to take the password too, 6 the idle timeout in ms; answers the outcome, and
-- where it was taken away the player, the player's next generation, the revision of the event and how many sessions were live
local h = head()
if not h then return GONE end
local account, at = ARGV[3], now()
local asking, broken = find(ARGV[4])
if broken then return broken end
if not asking or revocation(asking) then return {'outdated'} end
local player = asking.player
if redis.call('GET', account_key(account)) ~= player then return {'not_theirs'} end
if redis.call('LLEN', accounts_of(player)) < 2 then return {'last_one'} end
local live
live, broken = live_sessions(player, at, tonumber(ARGV[6]))
if broken then return broken end
local following, revision = revoke_player(player, asking.current, at, h)
redis.call('DEL', account_key(account))
redis.call('LREM', accounts_of(player), 0, account)
if ARGV[5] == '1' then redis.call('HDEL', player_key(player), 'password') end
return {'unlinked', player, following, revision, int(live)}
