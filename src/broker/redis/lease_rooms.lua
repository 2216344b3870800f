-- Runs a command on the set of the rooms in which a lease has members. A value of another type is
-- replaced by all occupied rooms: a superset, so that reaping misses none of the lease's members.
--   KEYS  the set, and the three lists of occupied rooms
--   ARGV  the command, and its arguments behind the key
-- Returns the answer of the command.

if heal('ZCARD', KEYS[1]) then
  for at = 2, 4 do
    heal_rooms(KEYS[at])
  end
  redis.call('ZUNIONSTORE', KEYS[1], 3, unpack(KEYS, 2))
end
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
