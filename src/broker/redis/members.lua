-- Reads a page of the list of a room's members, in the order of names; or of a user's connections.
--   KEYS  here, names, live
--   ARGV  the room's topic; 2 to read the names, 3 the connections; the name to begin behind (''
--         for the first), how many
-- Returns the version, the number of users, the number of anonymous connections, whether there are
-- names behind the page ('0' or '1'), how many fields could not be read, and a list of name,
-- connections, info, name ...

local topic, list, after, limit = unpack(ARGV)
local here, names = KEYS[1], KEYS[tonumber(list)]
limit = tonumber(limit)

if heal_room(topic, unpack(KEYS)) then
  return redis.error_reply('LOST the list of this room; the nodes write their members again')
end

local own = redis.call('HMGET', here, '@version', '@anonymous')
local version = string.match(own[1] or '', '^%d+$') or '0'
local anonymous = parts_of(own[2])
local junk = anonymous and 0 or 1
local count = redis.call('ZCARD', names)

local from = after == '' and '-' or '(' .. after
local found = redis.call('ZRANGEBYLEX', names, from, '+', 'LIMIT', 0, limit + 1)
local more = #found > limit and '1' or '0'
found[limit + 1] = nil

local page = {}
local values = #found > 0 and redis.call('HMGET', here, unpack(found)) or {}
for at, name in ipairs(found) do
  local connections, info = sum(parts_of(values[at]))
  if connections > 0 then
    page[#page + 1] = name
    page[#page + 1] = digits(connections)
    page[#page + 1] = info
  else
    junk = junk + 1
    count = count - 1
  end
end
return { version, digits(count), digits(sum(anonymous)), more, digits(junk), page }
