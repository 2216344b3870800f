-- The data of presence, shared by its scripts: three keys with the room's tag, and a set of rooms.
--   here   a hash. A user's field holds one part for each node that has connections of the user:
--          a lease, a number of connections, and the user's info (or nothing):
--            "1" { LEASE " " CONNECTIONS " " LENGTH ":" INFO }
--          The digit is the version of the format. A field in a newer one is neither counted nor
--          changed: the script refuses the room, before its first write, until a node that can
--          read the field has replaced it. @anonymous is the field of the connections without a
--          user. @SESSION is the field of one connection of the user whose personal room it is;
--          its "info" describes the connection. @version is the version of the list,
--          @connections the number of all connections, anonymous ones included. No user name
--          begins with @.
--   names  a sorted set of the users in the room, all with score 0: pages are in the order of names
--   live   likewise the fields of the connections of the user whose personal room it is
--   rooms  likewise the occupied rooms
-- An empty room keeps only its version, for a while, so that a node that follows it detects that it
-- missed no change. Later versions begin above the time in microseconds, which is greater than any
-- earlier version, even after Redis has lost all data.

local function is_newer(value)
  return string.find(value, '^[2-9]') ~= nil
end

local function refuse_newer()
  error(redis.error_reply('NEWER a field of this room is in a newer format; upgrade this node'))
end

-- The parts of a field; nil when it is malformed. Raises an error when a node of a later version
-- wrote it.
local function parts_of(value)
  local parts, at = {}, 2
  if not value then
    return parts
  end
  if is_newer(value) then
    refuse_newer()
  end
  if string.sub(value, 1, 1) ~= '1' then
    return nil
  end
  while at <= #value do
    local lease, connections, length, behind = string.match(value, '^(%x+%.%d+) (%d+) (%d+):()', at)
    if not lease or behind + length - 1 > #value then
      return nil
    end
    local info = string.sub(value, behind, behind + length - 1)
    parts[#parts + 1] = { lease = lease, connections = tonumber(connections), info = info }
    at = behind + length
  end
  return parts
end

-- The public sum of the parts: all connections, and the newest info.
local function sum(parts)
  local connections, info = 0, ''
  for _, part in ipairs(parts or {}) do
    connections = connections + part.connections
    if part.info ~= '' then
      info = part.info
    end
  end
  return connections, info
end
