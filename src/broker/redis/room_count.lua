-- Counts who is in a room, and tells where it stands.
--   KEYS  here, names, meta
-- Answers connections in all, users, connections without a name, epoch, offset; both of these are
-- '' when the room has no position, or when only a read can judge whether it still has it.

local here, names, meta = KEYS[1], KEYS[2], KEYS[3]

local connections, users, anonymous = count(here, names)
local known = redis.pcall('HMGET', meta, 'epoch', 'offset', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or '-'
local epoch, offset = '', ''
if not known.err and known[3] == replid then
  epoch, offset = known[1] or '', known[2] or ''
end
return { digits(connections), digits(users), digits(anonymous), epoch, offset }
