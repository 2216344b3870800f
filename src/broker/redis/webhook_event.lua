-- Appends a webhook event: a room is 'occupied' or 'vacated'. The scripts that change a room get
-- two more keys for it: `hooks`, a stream, and `lost`, the count of events that were dropped for
-- lack of space; or neither, when no webhook watches the room. webhook_queue.lua reads them. A
-- stream of the wrong type or a full one must not prevent the change itself: nothing here can fail.

local function append_event(hooks, lost, limit, change, room)
  local added = redis.pcall('XADD', hooks, '*', 'b', '1 ' .. change .. ' ' .. room)
  local dropped = 1
  if type(added) == 'string' then
    dropped = redis.pcall('XTRIM', hooks, 'MAXLEN', '~', limit)
  end
  if type(dropped) == 'number' and dropped > 0 then
    redis.pcall('INCRBY', lost, dropped)
  end
end
