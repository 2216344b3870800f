-- Shared by both scripts of revocations. Their keys:
--   revoked    a sorted set: each user, and the last time of issue (ms since 1970) of its tokens
--              that are revoked; with half a millisecond more when that time is exact
--   confirmed  a hash. `complete` is the replication id under which every live node had written all
--              its revocations. Until it is the present one, each node has a field with its
--              incarnation: the replication id under which it has written all, or '~' and that id
--              when it has just started and has none to write.
--   nodes      all leases, by when they end
-- Their first arguments: the node's incarnation, the longest time that a lease can have (ms), the
-- node's clock (ms since 1970), and for how long a revocation is kept after its time (ms).

local revoked, confirmed, nodes = unpack(KEYS)
local me, longest, node_clock, kept = unpack(ARGV, 1, 4)

local replid, failure = data_set()
if not replid then
  return failure
end
local now = millis()

-- Values of another type are deleted, and the nodes write their revocations again.
if is_foreign(redis.pcall('ZCARD', revoked)) then
  redis.call('DEL', revoked, confirmed)
elseif is_foreign(redis.pcall('HGET', confirmed, 'complete')) then
  redis.call('DEL', confirmed)
end

-- No time is greater than what scripts count in; a revocation until then could not be replaced.
redis.call('ZREMRANGEBYSCORE', revoked, digits(2 ^ 53), '+inf')
-- A revocation is removed when it is over by the node's clock and by this server's.
local over = math.min(tonumber(node_clock), now) - tonumber(kept)
redis.call('ZREMRANGEBYSCORE', revoked, '-inf', '(' .. digits(over))

local function is_complete()
  return redis.call('HGET', confirmed, 'complete') == replid
end

-- How many other live nodes have not written their revocations.
local function awaited()
  local count, seen = 0, { [me] = true }
  local to = digits(now + tonumber(longest))
  local leases = redis.pcall('ZRANGEBYSCORE', nodes, digits(now), to)
  for _, lease in ipairs(leases.err and {} or leases) do
    local run = string.match(lease, '^(%x+)%.')
    if run and not seen[run] then
      seen[run] = true
      local known = redis.call('HGET', confirmed, run)
      if known ~= replid and known ~= '~' .. replid then
        count = count + 1
      end
    end
  end
  return count
end
