-- Reads a page of the occupied rooms, in the order of names, and counts the members of each.
--   KEYS  rooms
--   ARGV  where to begin and to end, as ZRANGEBYLEX takes it; how many; and the text before and
--         behind a room's name in its keys here and names, which depend on the list itself
-- Returns whether there are more ('0' or '1'), and a list of name, connections, users, anonymous
-- connections, name ...

local rooms = KEYS[1]
local from, to, limit, before, here, names = unpack(ARGV)
limit = tonumber(limit)
heal_rooms(rooms)

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
