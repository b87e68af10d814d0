"""What Redis does in one step: scripts, since what they read and write must not be torn.

`look` finds the epochs of a partition, and begins a new one when the server's replication id is another than it was:
then the server has been restarted, or a replica has taken over, and entries may be missing from the end.
"""

from __future__ import annotations

_LOOK = """
local log, meta = KEYS[1], KEYS[2]
local function whole(number) return string.format('%.0f', number) end
local function look(now, known_epoch, known_next)
    local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
    local held = redis.call('HMGET', meta, 'epochs', 'next', 'replid', 'bytes', 'newest')
    local epochs, following, newest = held[1], tonumber(held[2] or '0'), tonumber(held[5] or '0')
    local lost = epochs and newest == known_epoch and following < known_next
    if not epochs or held[3] ~= replid or lost then
        newest = math.max(now, newest + 1, known_epoch + 1)
        local began = whole(newest) .. ':' .. whole(following)
        epochs = epochs and (epochs .. ',' .. began) or began
        redis.call('HSET', meta, 'epochs', epochs, 'next', whole(following), 'replid', replid, 'newest', whole(newest))
    end
    return epochs, following, tonumber(held[4] or '0')
end
local function first(following)
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    return oldest and tonumber(string.match(oldest[1], '^%d+')) or following
end
"""

APPEND = (
    _LOOK
    + """
local epochs, following, bytes = look(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
local most, size = tonumber(ARGV[4]), 0
for number = 5, #ARGV do size = size + #ARGV[number] end
if most > 0 and bytes + size > most then return redis.error_reply('LOGFULL ' .. whole(bytes)) end
local begin = following
for number = 5, #ARGV do
    redis.call('XADD', log, whole(following) .. '-1', 'e', ARGV[number])
    following = following + 1
end
redis.call('HSET', meta, 'next', whole(following), 'bytes', whole(bytes + size))
return {whole(begin), epochs}
"""
)
"""now, the epoch and next number that the caller knows, the most bytes, the entries -> first number, epochs."""

READ = (
    _LOOK
    + """
local epochs, following, bytes = look(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
local found, count = {}, tonumber(ARGV[5])
if count > 0 then found = redis.call('XRANGE', log, ARGV[4] .. '-1', '+', 'COUNT', count) end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
return {epochs, whole(first(following)), whole(following), whole(bytes), found, oldest}
"""
)
"""now, known epoch and next number, the first number, how many -> epochs, first, next, bytes, entries, the oldest."""

TRIM = (
    _LOOK
    + """
local _, following, bytes = look(tonumber(ARGV[1]), 0, 0)
local before = redis.call('XLEN', log)
if before == 0 then return 0 end
redis.call('XTRIM', log, 'MINID', ARGV[2] .. '-0')
local freed = math.floor(bytes * (before - redis.call('XLEN', log)) / before)
redis.call('HSET', meta, 'bytes', whole(bytes - freed))
return whole(freed)
"""
)
"""now, the first number to keep -> about how many bytes went."""

COMMIT = """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
"""
"""The set of names and the group's hash; its name, then fields and values."""

CLAIM = """
local members, leases = KEYS[1], KEYS[2]
local member, ttl, partitions = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
redis.call('ZADD', members, now + ttl, member)
local fair = math.ceil(partitions / redis.call('ZCARD', members))
local own = {}
for partition = 0, partitions - 1 do
    if redis.call('HGET', leases, partition) == member then
        if #own < fair then table.insert(own, partition) else redis.call('HDEL', leases, partition) end
    end
end
for partition = 0, partitions - 1 do
    local holder = redis.call('HGET', leases, partition)
    local free = not holder or (holder ~= member and not redis.call('ZSCORE', members, holder))
    if free and #own < fair then
        redis.call('HSET', leases, partition, member)
        table.insert(own, partition)
    end
end
return own
"""
"""The members by when they are given up, who has each partition; a member, its milliseconds, how many partitions."""

LEAVE = """
redis.call('ZREM', KEYS[1], ARGV[1])
for _, partition in ipairs(redis.call('HKEYS', KEYS[2])) do
    if redis.call('HGET', KEYS[2], partition) == ARGV[1] then redis.call('HDEL', KEYS[2], partition) end
end
"""
