-- Sets how many connections of some users a node has in a room. Replaces what the same run of the
-- node has written before, under this lease or a former one; likewise for single connections of a
-- user. Idempotent.
--   KEYS  here, names, live, rooms, and if a webhook watches the room: hooks, lost
--   ARGV  topic; lease (INCARNATION.COUNT); its latest known end and the length of a lease (in
--         milliseconds of this server); how long the version of an empty room is kept; how many
--         entries the stream keeps; then for each user: its name (or '' for anonymous connections,
--         or the field of a connection), connections, info (or '')
-- Returns the versions of the list before and after; or false, without a write, when the lease may
-- be over: then other nodes may have reaped it, and would not do so again.

local topic, lease, ends, span, tail, limit = unpack(ARGV, 1, 6)

-- An end further ahead than the length of a lease: the clock was set back.
local left = tonumber(ends) - micros() / 1000
if left < 0 or left > tonumber(span) then
  return false
end

-- A node detects by a version below the last one it knows that the list was lost.
local before = heal_room(topic, here, names, live) and 0 or version_of()
heal_rooms(rooms)
local was_occupied = is_occupied()
local run = string.match(lease, '^%x+%.')
local function field_at(at)
  return ARGV[at] == '' and '@anonymous' or ARGV[at]
end
-- All fields are read before the first write: one may be in a newer format.
local formers = {}
for at = 7, #ARGV, 3 do
  formers[at] = parts_of(redis.call('HGET', here, field_at(at))) or false
end
for at = 7, #ARGV, 3 do
  local field, connections, info = field_at(at), tonumber(ARGV[at + 1]), ARGV[at + 2]
  local former = formers[at] or nil
  local mine = { lease = lease, connections = connections, info = info }
  local parts, same, found = {}, true, false
  for _, part in ipairs(former or {}) do
    if string.sub(part.lease, 1, #run) ~= run then
      parts[#parts + 1] = part
    elseif connections > 0 and part.info == info and not found then
      -- It keeps its place: an info that is repeated is not the newest.
      found = true
      same = same and part.lease == lease and part.connections == connections
      parts[#parts + 1] = mine
    else
      same = false
    end
  end
  if connections > 0 and not found then
    same = false
    parts[#parts + 1] = mine
  end
  if not former or not same then
    write(topic, field, former, parts)
  end
end
settle(tail, was_occupied, limit)
return { digits(before), digits(version_of()) }
