-- What every script begins with. KEYS is empty: one primary holds all keys, and most of them are found out on the way.
--
-- ARGV[1]  the prefix of all keys
-- ARGV[2]  the time in ms, from a caller who keeps the time; '' (the rule): this server's clock says it
--
-- A script is one atomic step, but it is not undone when it breaks off: so each one reads and checks first, and writes last.
local P = ARGV[1]

local function int(n) return string.format('%.0f', n) end

local function now()
  if ARGV[2] ~= '' then return tonumber(ARGV[2]) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- The head of the log, or none: then the data set is gone, and nothing in it is to be believed before somebody has made a new one.
local function head() return redis.call('HGET', P .. 'log:state', 'head') end
local GONE = redis.error_reply('GONE the data set is not there')
local function damaged(what) return redis.error_reply('DAMAGED ' .. what) end

local function session_key(id) return P .. 'session:' .. id end
local function player_key(id) return P .. 'player:' .. id end
local function sessions_of(player) return P .. 'sessions-of:' .. player end
local function granted_to(gateway) return P .. 'granted-to:' .. gateway end
local function account_key(account) return P .. 'account:' .. account end
local function accounts_of(player) return P .. 'accounts-of:' .. player end

local FIELDS = {
  'player', 'player_generation', 'generation', 'method', 'created_at', 'ends_at', 'active_at', 'revoked_revision',
  'rotated_at', 'rotated_role',
}

-- A session and its player, or nil if there is none. Texts as they are stored: numbers stay exact.
local function find(id)
  local s = redis.call('HMGET', session_key(id), unpack(FIELDS))
  if not s[1] then return nil end
  local p = redis.call('HMGET', player_key(s[1]), 'generation', 'role', 'revoked_revision')
  if not p[1] then return nil, damaged('players') end
  return {
    id = id, player = s[1], player_generation = s[2], generation = s[3], method = s[4], created_at = s[5],
    ends_at = s[6], active_at = s[7], revoked = s[8] or '', rotated_at = s[9] or '0', rotated_role = s[10] or '',
    current = p[1], role = p[2], player_revoked = p[3],
  }
end

-- The revision that revoked it, alone or with all of its player's; nil if none did.
local function revocation(f)
  if f.revoked ~= '' then return f.revoked end
  if tonumber(f.player_generation) < tonumber(f.current) then return f.player_revoked end
  return nil
end

-- What ended it: 'r'evocation, 'a'bsolute end, 'i'dleness; nil while it lives.
local function ended(f, at, idle)
  if revocation(f) then return 'r' end
  if at >= tonumber(f.ends_at) then return 'a' end
  if at >= tonumber(f.active_at) + idle then return 'i' end
  return nil
end

-- As records.rs reads it.
local function row(f, h)
  return {
    f.id, f.player, f.player_generation, f.generation, f.method, f.created_at, f.ends_at, f.active_at, f.revoked,
    f.current, f.role, f.player_revoked, f.rotated_at, f.rotated_role, h,
  }
end

-- Appends an event and returns its revision. The stream first: should it refuse, nothing has changed.
local function append(event, at, h)
  local revision = int(tonumber(h) + 1)
  redis.call('XADD', P .. 'log', revision .. '-0', 'event', event, 'at', int(at))
  redis.call('HSET', P .. 'log:state', 'head', revision)
  return revision
end

-- The sessions that were revoked, alone or with all of their player's, in one place: a gateway that attaches asks about a million at once.
local REVOKED = P .. 'revoked'

-- The sessions that were granted to several gateways.
local TRAVELLED = P .. 'travelled'

local function revoke(f, at, h)
  local revision = append('s' .. f.id, at, h)
  redis.call('HSET', session_key(f.id), 'revoked_at', int(at), 'revoked_revision', revision)
  redis.call('SADD', REVOKED, f.id)
  return revision
end

-- How many of a player's sessions live; nil, and what is wrong, if something is.
local function live_sessions(player, at, idle)
  local live = 0
  for _, session in ipairs(redis.call('ZRANGE', sessions_of(player), 0, -1)) do
    local f, broken = find(session)
    if broken then return nil, broken end
    if f and not ended(f, at, idle) then live = live + 1 end
  end
  return live
end

-- Ends all sessions of a player of `generation`: the next generation, and the revision of the event.
local function revoke_player(player, generation, at, h)
  local following = int(tonumber(generation) + 1)
  local revision = append('p' .. player .. ':' .. following, at, h)
  redis.call('HSET', player_key(player), 'generation', following, 'revoked_revision', revision)
  for _, session in ipairs(redis.call('ZRANGE', sessions_of(player), 0, -1)) do redis.call('SADD', REVOKED, session) end
  return following, revision
end

local function make_player(player, account, role, at)
  redis.call('HSET', player_key(player), 'generation', '0', 'role', role, 'revoked_revision', '0', 'created_at', int(at))
  redis.call('SET', account_key(account), player)
  redis.call('RPUSH', accounts_of(player), account)
end

-- What the ways to log in keep stands by its name, and in `expiring` by its end, for the purge. Should nobody be there to purge, it goes by
-- itself an hour after its end: until then what has expired is told from what never was.
local EXPIRING, KEPT = P .. 'expiring', 3600000

local function keep_until(name, at, expires)
  redis.call('PEXPIRE', P .. name, int(expires - at + KEPT))
  redis.call('ZADD', EXPIRING, int(expires), name)
end

local function forget(name)
  redis.call('DEL', P .. name)
  redis.call('ZREM', EXPIRING, name)
end
