-- Keeps for the webhooks that a room is 'occupied', or 'vacated' again; for a script that has just
-- made it so, on the keys that it was given for this: `hooks`, the stream, and `lost`, where those
-- are counted for which there was no room in it. Without them (nil) nobody wants to know, and
-- nothing is done. The script that reads the stream is hooks.lua.
--
-- A stream that is spoilt or full must not spoil the change itself: nothing here can fail.

local function notice(hooks, lost, limit, change, room)
  if not hooks then
    return
  end
  local added = redis.pcall('XADD', hooks, '*', 'b', '1 ' .. change .. ' ' .. room)
  local dropped = 1
  if type(added) == 'string' then
    dropped = redis.pcall('XTRIM', hooks, 'MAXLEN', '~', limit)
  end
  if type(dropped) == 'number' and dropped > 0 then
    redis.pcall('INCRBY', lost, dropped)
  end
end
