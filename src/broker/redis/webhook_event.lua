-- Appends a webhook event: a room is 'occupied' or 'vacated'. The scripts that change a room get
-- two more keys for it: `hooks`, a stream, and `lost`, the count of events that were dropped for
-- lack of space; or neither, when no webhook watches the room. webhook_queue.lua reads them. A
-- value of another type is replaced, and a full stream is trimmed: nothing here can fail, because
-- it must not prevent the change itself.

-- Adds to the number of dropped events. The key may hold any value.
local function count_dropped(lost, dropped)
  if type(redis.pcall('INCRBY', lost, dropped)) == 'table' then
    redis.pcall('DEL', lost)
    redis.pcall('INCRBY', lost, dropped)
  end
end

local function append_event(hooks, lost, limit, change, room)
  local body = '1 ' .. change .. ' ' .. room
  local added = redis.pcall('XADD', hooks, '*', 'b', body)
  local is_refused = type(added) == 'table'
  if is_foreign(added) or is_refused and string.find(added.err, 'exhausted', 1, true) then
    redis.pcall('DEL', hooks)
    added = redis.pcall('XADD', hooks, '*', 'b', body)
  end
  local dropped = 1
  if type(added) == 'string' then
    dropped = redis.pcall('XTRIM', hooks, 'MAXLEN', '~', limit)
  end
  if type(dropped) == 'number' and dropped > 0 then
    count_dropped(lost, dropped)
  end
end
