-- Replaces values of another type under the keys of presence, which other software wrote. Shared by
-- the scripts that read or change a room's members, and by those that read the occupied rooms.

-- The time in microseconds is greater than any version, unless the clock was set back.
local function raise_version(here)
  local known = tonumber(string.match(redis.call('HGET', here, '@version') or '', '^%d+$')) or 0
  local from = known < 2 ^ 53 and known or 0
  local version = math.max(from + 1, micros())
  redis.call('HSET', here, '@version', digits(version))
  return from, version
end

-- Begins a room as an empty one if one of its keys is foreign, and returns whether it did. The
-- message is a change without a user that follows no version: each node with members in the room
-- writes them again, and each that follows it reads the list again.
local function heal_room(topic, here, names, live)
  local keys, found = { here, names, live }, false
  for at, key in ipairs(keys) do
    found = heal(at == 1 and 'HLEN' or 'ZCARD', key) or found
  end
  if found then
    redis.call('DEL', unpack(keys))
    local from, version = raise_version(here)
    redis.call('PUBLISH', topic, table.concat({
      '1', 'here', digits(from), digits(version), '-', '0', '0', '',
    }, ' '))
  end
  return found
end

-- Makes a list of occupied rooms anew if it is foreign: of the rooms in which the leases have
-- members, those of its kind.
local function heal_rooms(rooms)
  if not heal('ZCARD', rooms) then
    return
  end
  local prefix, kind = string.match(rooms, '^(.*):rooms:?([@$]?)$')
  local leases = redis.pcall('ZRANGEBYSCORE', prefix .. ':nodes', '-inf', '+inf')
  for _, lease in ipairs(leases) do
    local of_lease = prefix .. ':node:' .. lease .. ':rooms'
    local found = redis.pcall('ZRANGEBYSCORE', of_lease, '-inf', '+inf')
    for _, room in ipairs(found) do
      if string.match(room, '^[@$]?') == kind then
        redis.call('ZADD', rooms, 0, room)
      end
    end
  end
end
