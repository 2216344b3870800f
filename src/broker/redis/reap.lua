-- Takes the parts of a lease that is over out of a room, a few fields at a time. Doing it twice is doing it
-- once, whoever does it.
--   KEYS  here, names, and if anybody wants to know: hooks, lost
--   ARGV  topic, lease, where to go on ('0' to begin), about how many fields, how long the version of
--         an empty room is kept in milliseconds, how many entries the stream keeps
-- Answers where to go on; '0': the room is done.

local here, names = KEYS[1], KEYS[2]
local topic, lease, cursor, count, tail, limit = unpack(ARGV)
local was_occupied = is_occupied(here, names)

clear_foreign(here, names)
local page = redis.call('HSCAN', here, cursor, 'COUNT', count)
local fields = page[2]
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
      write(here, names, topic, field, former, parts)
    end
  end
end
settle(here, names, tail, was_occupied, KEYS[3], KEYS[4], limit)
return page[1]
