-- Removes the parts of a lease that is over from a room, a few fields at a time. Idempotent; any
-- node may call it.
--   KEYS  here, names, live, rooms, and if a webhook watches the room: hooks, lost
--   ARGV  topic, lease, the cursor ('0' to begin), about how many fields, how long the version of
--         an empty room is kept in milliseconds, how many entries the stream keeps
-- Returns the next cursor; '0': the room is done.

local topic, lease, cursor, count, tail, limit = unpack(ARGV)
heal_room(topic, here, names, live)
heal_rooms(rooms)
local was_occupied = is_occupied()

local page = redis.call('HSCAN', here, cursor, 'COUNT', count)
local fields = page[2]
for at = 1, #fields, 2 do
  local is_number = fields[at] == '@version' or fields[at] == '@connections'
  if not is_number and is_newer(fields[at + 1]) then
    refuse_newer()
  end
end
for at = 1, #fields, 2 do
  local field, value = fields[at], fields[at + 1]
  if string.find(value, lease .. ' ', 1, true) then
    local former, parts = parts_of(value), {}
    for _, part in ipairs(former or {}) do
      if part.lease ~= lease then
        parts[#parts + 1] = part
      end
    end
    if former and #parts < #former then
      write(topic, field, former, parts)
    end
  end
end
settle(tail, was_occupied, limit)
return page[1]
