-- The part of the scripts that change a room.

-- Somebody else has written values of another kind: they go, and the room begins anew.
local function clear_foreign(here, names)
  for command, key in pairs({ HLEN = here, ZCARD = names }) do
    local reply = redis.pcall(command, key)
    if type(reply) == 'table' and string.find(reply.err, 'WRONGTYPE', 1, true) then
      redis.call('DEL', key)
    end
  end
end

local function version_of(here)
  local version = tonumber(string.match(redis.call('HGET', here, '@version') or '', '^%d+$')) or 0
  return version < 2 ^ 53 and version or 0
end

-- Raises the version of the room and answers the former one and the new one.
local function raise(here)
  local from = version_of(here)
  local version = math.max(from + 1, micros())
  redis.call('HSET', here, '@version', digits(version))
  return from, version
end

-- Writes the parts of a field in the place of the former ones. When that changes what everyone sees of a
-- user, the version is raised and everyone who follows the room is told.
local function write(here, names, topic, field, former, parts)
  local texts = { '1' }
  for _, part in ipairs(parts) do
    texts[#texts + 1] = part.lease .. ' ' .. digits(part.connections) .. ' ' .. #part.info .. ':' .. part.info
  end
  if #parts > 0 then
    redis.call('HSET', here, field, table.concat(texts))
  else
    redis.call('HDEL', here, field)
  end
  if field == '@anonymous' then
    return
  end
  local was, shown = sum(former)
  local connections, info = sum(parts)
  if connections > 0 then
    redis.call('ZADD', names, 0, field)
  else
    redis.call('ZREM', names, field)
  end
  if was ~= connections or shown ~= info then
    local from, version = raise(here)
    local words = { '1', 'here', digits(from), digits(version), field, digits(was), digits(connections), info }
    redis.call('PUBLISH', topic, table.concat(words, ' '))
  end
end

local function is_occupied(here, names)
  return redis.call('ZCARD', names) > 0 or redis.call('HEXISTS', here, '@anonymous') == 1
end

-- After all changes: a room in which nobody is left is forgotten after a while, and whoever wants to know whether
-- anybody is in it is told when that is no longer as it was. `hooks` and the rest are those of `notice`.
local function settle(here, names, tail, was_occupied, hooks, lost, limit)
  local occupied = is_occupied(here, names)
  if occupied then
    redis.call('PERSIST', here)
  else
    redis.call('PEXPIRE', here, tail)
  end
  if hooks and occupied ~= was_occupied then
    notice(hooks, lost, limit, occupied and 'occupied' or 'vacated', string.match(here, '{(.*)}'))
  end
end
