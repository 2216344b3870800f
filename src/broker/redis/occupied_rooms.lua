-- Reads a page of the rooms in which somebody is, in the order of names, and counts who is in each.
--   KEYS  rooms
--   ARGV  where to begin and to end, as ZRANGEBYLEX takes it; how many; and what stands before and
--         behind a room's name in its keys here and names: they are not known before the list is
-- Answers whether there are more ('0' or '1'), and a list of name, connections in all, users,
-- connections without a name, name ...

local rooms = KEYS[1]
local from, to, limit, before, here, names = unpack(ARGV)
limit = tonumber(limit)

local found = redis.call('ZRANGEBYLEX', rooms, from, to, 'LIMIT', 0, limit + 1)
local more = #found > limit and '1' or '0'
found[limit + 1] = nil

local page = {}
for _, room in ipairs(found) do
  local connections, users, anonymous = count(before .. room .. here, before .. room .. names)
  page[#page + 1] = room
  page[#page + 1] = digits(connections)
  page[#page + 1] = digits(users)
  page[#page + 1] = digits(anonymous)
end
return { more, page }
