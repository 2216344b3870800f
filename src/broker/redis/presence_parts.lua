-- What the scripts of presence know of a room: three keys with the room's tag, and a list of rooms.
--   here a hash. A user's field holds the parts of all nodes that have connections of the user; a
--   part
--          is a lease, a number of connections, and what the user shows of itself (or nothing):
--            "1" { LEASE " " CONNECTIONS " " LENGTH ":" INFO }
--          The digit is the version of the format. A field in a newer one is neither counted nor changed: the
--          script refuses the room, before its first write, until a node that can read the field has done its work.
--          @anonymous is such a field for those without a name; @ and a session is one for a connection
--          of the user whose personal room it is, and its "info" says what is known of it. @version says
--          how often the list has changed, @connections how many there are in all, those without a name
--          included. No user's name begins with @.
--   names  a sorted set of the users in it, all with score 0: pages go by the order of names
--   live   likewise the fields of the connections of the user whose personal room it is
--   rooms  likewise the rooms in which somebody is
-- A room in which nobody is keeps its version alone, for a while: so whoever followed it meanwhile
-- sees that nothing was missed. Later versions begin above the time in microseconds, which is above
-- any version that ever was, even when Redis has lost everything.

-- Whole numbers below 2^53; Lua would write the greater ones like 1e+15.
local function digits(number)
  return string.format('%.0f', number)
end

local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function is_newer(value)
  return string.find(value, '^[2-9]') ~= nil
end

local function refuse_newer()
  error(redis.error_reply('NEWER a field of this room is in a newer format; upgrade this node'))
end

-- The parts of a field; nil when it is none of ours. Raises an error when a node of a later version
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

-- What everyone sees of the parts: all connections, and the newest info.
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
