-- What webhooks are to tell: that a room is 'occupied', or 'vacated' again. The scripts that change
-- a room are given two keys more for it, `hooks`, a stream, and `lost`, where it is counted what
-- the stream had no room for; or none, when nobody wants to know of the room. hooks.lua reads them.
-- A stream that is spoilt or full must not spoil the change itself: nothing here can fail.

local function notice(hooks, lost, limit, change, room)
  local added = redis.pcall('XADD', hooks, '*', 'b', '1 ' .. change .. ' ' .. room)
  local dropped = 1
  if type(added) == 'string' then
    dropped = redis.pcall('XTRIM', hooks, 'MAXLEN', '~', limit)
  end
  if type(dropped) == 'number' and dropped > 0 then
    redis.pcall('INCRBY', lost, dropped)
  end
end
