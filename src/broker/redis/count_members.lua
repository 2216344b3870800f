-- Shared by the scripts that count the members of rooms.

-- The number of connections in a room, of users, and of anonymous connections. Values of another
-- type count as an empty room.
local function count(here, names)
  local own = redis.pcall('HMGET', here, '@connections', '@anonymous')
  local users = redis.pcall('ZCARD', names)
  if own.err or type(users) == 'table' then
    return 0, 0, 0
  end
  local all = tonumber(string.match(own[1] or '', '^%d+$')) or 0
  return all < 2 ^ 53 and all or 0, users, (sum(parts_of(own[2])))
end
