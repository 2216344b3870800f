-- Takes, renews or shortens a lease, and returns the leases that are over.
--   KEYS  nodes: a sorted set of all leases, by when they end in milliseconds of this server
--         formats: a hash from lease to the newest format that its node reads
--   ARGV  lease; whether it may be taken ('1') or must be there ('0'); for how long in
--         milliseconds, but not to an end before this moment; how long a
--         lease is, and the longest it can be; how long after its end a lease is returned as over,
--         and how many at most; the newest format this node reads
-- Returns
--   held    its new end, and its former end ('' if it was not there)
--   lapsed  it was over and stays so; other nodes may have reaped it
--   lost    it is not there
-- and in each case the time, the replication id of the data set, the leases that are over, and the
-- lowest format of the leases that are not: a node that announces none (of a version that has no
-- such hash) reads format 1.

local nodes, formats = KEYS[1], KEYS[2]
local lease, take, span, earliest, usual, longest, margin, limit, format = unpack(ARGV)

local replid, failure = data_set()
if not replid then
  return failure
end
local now = millis()

local former = tonumber(redis.call('ZSCORE', nodes, lease) or nil)
local state, ends = 'held', now
if former and (former < now or former > now + tonumber(usual)) then
  -- Ends that are too far ahead are from before the clock was set back.
  state = 'lapsed'
elseif not former and take ~= '1' then
  state = 'lost'
else
  ends = math.max(now + tonumber(span), tonumber(earliest))
  redis.call('ZADD', nodes, digits(ends), lease)
end

local over = redis.call('ZRANGEBYSCORE', nodes, '-inf', digits(now - margin), 'LIMIT', 0, limit)
if #over == 0 then
  local ahead = '(' .. digits(now + tonumber(longest))
  over = redis.call('ZRANGEBYSCORE', nodes, ahead, '+inf', 'LIMIT', 0, limit)
end

-- Reads all announcements, adds this node's, and deletes those whose leases are over.
local announced = redis.pcall('HGETALL', formats)
if announced.err then
  -- Other software wrote a value of another type.
  redis.call('DEL', formats)
  announced = {}
end
local known, stale = {}, {}
for at = 1, #announced, 2 do
  known[announced[at]] = announced[at + 1]
end
if state == 'held' and known[lease] ~= format then
  redis.call('HSET', formats, lease, format)
  known[lease] = format
end
local lowest
for _, live in ipairs(redis.call('ZRANGEBYSCORE', nodes, digits(now), '+inf')) do
  local newest = tonumber(string.match(known[live] or '', '^[1-9]$')) or 1
  lowest = math.min(lowest or newest, newest)
  known[live] = nil
end
for ended in pairs(known) do
  stale[#stale + 1] = ended
end
for at = 1, #stale, 1000 do
  redis.call('HDEL', formats, unpack(stale, at, math.min(at + 999, #stale)))
end
return {
  state, digits(now), digits(ends), former and digits(former) or '', replid, over,
  digits(lowest or 1),
}
