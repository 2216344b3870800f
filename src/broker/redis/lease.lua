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

heal('HLEN', formats)
-- An access list of a former version may lack HGETALL; an error has no entries.
local announced, known = redis.pcall('HGETALL', formats), {}
for at = 1, #announced, 2 do
  known[announced[at]] = announced[at + 1]
end

local function is_lease(name)
  return string.find(name, '^%x+%.%d+$') ~= nil
end

local function remove(command, key, names)
  for at = 1, #names, 1000 do
    redis.call(command, key, unpack(names, at, math.min(at + 999, #names)))
  end
end

-- Names that are no leases are from other software.
heal('ZCARD', nodes)
local junk, leases = {}, 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', '+inf')) do
  if is_lease(name) then
    leases = leases + 1
  else
    junk[#junk + 1] = name
  end
end
remove('ZREM', nodes, junk)

-- If all leases are lost, those that were announced are held for one lease more: their nodes renew
-- them, and members of nodes that are gone are reaped.
if leases == 0 then
  for other in pairs(known) do
    if is_lease(other) then
      redis.call('ZADD', nodes, digits(now + tonumber(usual)), other)
    end
  end
end

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
  if known[lease] ~= format then
    redis.call('HSET', formats, lease, format)
    known[lease] = format
  end
end

local over, ahead, lowest = {}, {}, nil
local all = redis.call('ZRANGEBYSCORE', nodes, '-inf', '+inf', 'WITHSCORES')
for at = 1, #all, 2 do
  local name, until_ms = all[at], tonumber(all[at + 1])
  if until_ms > now + tonumber(longest) then
    ahead[#ahead + 1] = name
  elseif until_ms <= now - margin then
    over[#over + 1] = name
  end
  if until_ms >= now then
    local newest = tonumber(string.match(known[name] or '', '^[1-9]$')) or 1
    lowest = math.min(lowest or newest, newest)
  end
  known[name] = nil
end
if #over == 0 then
  over = ahead
end

-- Announcements without a lease.
local stale = {}
for name in pairs(known) do
  stale[#stale + 1] = name
end
remove('HDEL', formats, stale)
return {
  state, digits(now), digits(ends), former and digits(former) or '', replid,
  { unpack(over, 1, math.min(#over, tonumber(limit))) }, digits(lowest or 1),
}
