-- The part that all scripts that change a room share. Their keys are those of the room and, if a
-- webhook watches the room: hooks, lost.

local here, names, live, rooms, hooks, lost = unpack(KEYS)

local function version_of()
  local version = tonumber(string.match(redis.call('HGET', here, '@version') or '', '^%d+$')) or 0
  return version < 2 ^ 53 and version or 0
end

-- Counts the connections of all fields; and whether a field is in a newer format, so that there
-- may be more.
local function count_fields()
  local cursor, all, is_partial = '0', 0, false
  repeat
    local page = redis.call('HSCAN', here, cursor, 'COUNT', 1000)
    local fields = page[2]
    cursor = page[1]
    for at = 1, #fields, 2 do
      local field, value = fields[at], fields[at + 1]
      if string.sub(field, 1, 1) ~= '@' or field == '@anonymous' then
        -- The script has already written, so this must not fail.
        if is_newer(value) then
          is_partial = true
        else
          all = all + sum(parts_of(value))
        end
      end
    end
  until cursor == '0'
  return all, is_partial
end

-- Adds a difference to the number of connections; or counts all, if the former number is unknown.
local function count_more(more)
  local all = more
    and tonumber(string.match(redis.call('HGET', here, '@connections') or '', '^%d+$'))
  all = all and all + more or count_fields()
  redis.call('HSET', here, '@connections', digits(math.max(all, 0)))
end

-- Replaces the parts of a field. If that changes the public sum of a user, raises the version and
-- publishes the change on the room's topic.
local function write(topic, field, former, parts)
  local texts = { '1' }
  for _, part in ipairs(parts) do
    texts[#texts + 1] = part.lease .. ' ' .. digits(part.connections)
      .. ' ' .. #part.info .. ':' .. part.info
  end
  if #parts > 0 then
    redis.call('HSET', here, field, table.concat(texts))
  else
    redis.call('HDEL', here, field)
  end
  local was, shown = sum(former)
  local connections, info = sum(parts)
  local is_user = string.sub(field, 1, 1) ~= '@'
  if (is_user or field == '@anonymous') and not (former and connections == was) then
    count_more(former and connections - was)
  end
  if field == '@anonymous' then
    return
  end
  local list = is_user and names or live
  if connections > 0 then
    redis.call('ZADD', list, 0, field)
  else
    redis.call('ZREM', list, field)
  end
  if is_user and (was ~= connections or shown ~= info) then
    local from, version = raise_version(here)
    local parts_of_message = {
      '1', 'here', digits(from), digits(version), field, digits(was), digits(connections), info,
    }
    redis.call('PUBLISH', topic, table.concat(parts_of_message, ' '))
  end
end

local function is_occupied()
  local listed = redis.call('ZCARD', names) + redis.call('ZCARD', live)
  return listed > 0 or redis.call('HEXISTS', here, '@anonymous') == 1
end

-- Removes names and a count that stand in no field of a connection: other software wrote them, and
-- they would keep the room occupied for ever.
local function remove_leftovers()
  if redis.call('HGET', here, '@connections') == '0' then
    local all, is_partial = count_fields()
    if all == 0 and not is_partial then
      redis.call('DEL', names)
      redis.call('HDEL', here, '@anonymous')
    end
  end
end

-- After all changes: an empty room expires after a while and is not listed. If the room became
-- occupied or empty and a webhook watches it, appends an event.
local function settle(tail, was_occupied, limit)
  remove_leftovers()
  local occupied, room = is_occupied(), string.match(here, '{(.*)}')
  if occupied then
    redis.call('PERSIST', here)
    -- Each time, so that a list that has lost the room is repaired.
    redis.call('ZADD', rooms, 0, room)
  else
    redis.call('PEXPIRE', here, tail)
    redis.call('HDEL', here, '@connections')
    redis.call('ZREM', rooms, room)
  end
  if hooks and occupied ~= was_occupied then
    append_event(hooks, lost, limit, occupied and 'occupied' or 'vacated', room)
  end
end
