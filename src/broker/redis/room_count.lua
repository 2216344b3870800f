-- Counts the members of a room, and reads its position.
--   KEYS  here, names, meta
-- Returns all connections, users, anonymous connections, epoch, offset. Epoch and offset are ''
-- when the room has no position, when only a read can decide whether it is still valid, or when
-- this is not the master.

local here, names, meta = KEYS[1], KEYS[2], KEYS[3]

local connections, users, anonymous = count(here, names)
local known = redis.pcall('HMGET', meta, 'epoch', 'offset', 'replid')
local replid = data_set()
local epoch, offset = '', ''
if not known.err and replid and known[3] == replid then
  epoch, offset = known[1] or '', known[2] or ''
end
return { digits(connections), digits(users), digits(anonymous), epoch, offset }
