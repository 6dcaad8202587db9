"""The scripts in Lua that Redis runs. SETTLE does what `serving.traffic.sharing.settle` does, by Redis's own clock.

Numbers in Lua are doubles, in which nanoseconds since 1970 do not fit: instants are microseconds, paces are not whole.
"""

from hashlib import sha1

# KEYS: the tenant's counter. ARGV: interval in µs, burst, want, charged, returned, counted, per day (-1: no total).
# Returns tokens, level, wait in µs, left of the day (-1).
SETTLE = """
local interval, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local charged, returned, counted = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local per_day = tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local day_us = 86400000000
local day = math.floor(now / day_us)
local stored = redis.call('HMGET', KEYS[1], 'clear', 'day', 'used')
local clear = math.max(tonumber(stored[1] or '0'), now) + (charged - returned) * interval
local used = tonumber(stored[2] or '-1') == day and tonumber(stored[3]) or 0
used = math.max(0, used + charged + counted - returned)
local function level()
    return math.floor(burst - math.max(clear - now, 0) / interval + 1e-6)
end
local tokens = math.min(want, level())
if per_day >= 0 then tokens = math.min(tokens, per_day - used) end
tokens = math.max(tokens, 0)
clear = math.max(clear, now) + tokens * interval
used = used + tokens
local wait = math.max(0, math.ceil(clear - now - (burst - 1) * interval - 1e-6))
if level() >= 1 then wait = 0 end
local left = -1
if per_day >= 0 then
    left = math.max(0, per_day - used)
    if left == 0 then wait = (day + 1) * day_us - now end
end
local keep = math.ceil((clear - now) / 1000)
if per_day >= 0 and used > 0 then keep = math.max(keep, math.ceil(((day + 1) * day_us - now) / 1000)) end
if keep > 0 then
    redis.call('HSET', KEYS[1], 'clear', string.format('%.0f', clear), 'day', string.format('%.0f', day),
        'used', string.format('%.0f', used))
    redis.call('PEXPIRE', KEYS[1], keep)
else
    redis.call('DEL', KEYS[1])
end
return {tokens, level(), wait, left}
"""

# KEYS: the replicas that are present. ARGV: the replica, how long it stays present in ms, 0 to leave.
# Returns how many are present.
PRESENT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local keep = tonumber(ARGV[2])
if keep > 0 then
    redis.call('ZADD', KEYS[1], now + keep, ARGV[1])
    redis.call('PEXPIRE', KEYS[1], keep)
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZCARD', KEYS[1])
"""

# KEYS: a feature. ARGV: the value as `serving.store.features` packs it, its event time, and how long to keep it, in ms.
# Writes unless what is stored has a later event time. Something that is no such value is replaced.
# Returns 1 if it has written, else 0.
NEWER = """
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'string' then
    local readable, kept = pcall(cmsgpack.unpack, stored)
    if readable and type(kept) == 'table' and type(kept[1]) == 'number' and kept[1] > tonumber(ARGV[2]) then
        return 0
    end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
"""


def digest(script: str) -> str:
    """Returns the name under which Redis keeps a script that it has run."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()
