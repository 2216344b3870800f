-- Reads all revocations.
--   KEYS  see revocation_set.lua
--   ARGV  see there; then '1' if the node has just started
-- Returns the replication id; whether the set is complete under it (1 or 0); if not, how many other
-- live nodes have not written their revocations; and a list of user, time, user, time ...

local complete = is_complete()
if not complete and ARGV[5] == '1' then
  -- Without memory for it the others wait a little longer.
  redis.pcall('HSET', confirmed, me, '~' .. replid)
end
local all = redis.call('ZRANGEBYSCORE', revoked, '-inf', '+inf', 'WITHSCORES')
return { replid, complete and '1' or '0', digits(complete and 0 or awaited()), all }
