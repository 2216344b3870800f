-- What the scripts know that count rooms.

-- How many connections there are in a room, how many users, and how many connections without a
-- name. What is none of ours counts as nobody.
local function count(here, names)
  local own = redis.pcall('HMGET', here, '@connections', '@anonymous')
  local users = redis.pcall('ZCARD', names)
  if own.err or type(users) == 'table' then
    return 0, 0, 0
  end
  local all = tonumber(string.match(own[1] or '', '^%d+$')) or 0
  return all < 2 ^ 53 and all or 0, users, (sum(parts_of(own[2])))
end
