-- Writes revocations, and records that the node has written all revocations that it has.
--   KEYS  see revocation_set.lua
--   ARGV  see there; then how many users the set has at most; the replication id under which the
--         node has written all ('' if it has not), and '1' if the set is complete with that even if
--         other nodes have not; then for each revocation user and time
-- Returns the users for whom the set had no time, or a lesser one.

local most, data_set, force = unpack(ARGV, 5, 7)

local changed = {}
for at = 8, #ARGV, 2 do
  local user, through = ARGV[at], ARGV[at + 1]
  if redis.call('ZADD', revoked, 'GT', 'CH', through, user) == 1 then
    changed[#changed + 1] = user
  end
end

-- Above the bound, the oldest are removed.
local gone = {}
local many = redis.call('ZCARD', revoked) - tonumber(most)
if many > 0 then
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', revoked, '-inf', '+inf', 'LIMIT', 0, many)) do
    redis.call('ZREM', revoked, user)
    gone[user] = true
  end
end

if data_set == replid and not is_complete() then
  redis.call('HSET', confirmed, me, replid)
  if force == '1' or awaited() == 0 then
    redis.call('DEL', confirmed)
    redis.call('HSET', confirmed, 'complete', replid)
  end
end

local left = {}
for _, user in ipairs(changed) do
  if not gone[user] then
    left[#left + 1] = user
  end
end
return left
