-- Sets how many connections of some users a node has in a room, in the place of whatever the same
-- run of the node has said of them before, under this lease or a former one; likewise for a user's
-- single connections. Doing it twice is doing it once.
--   KEYS here, names, live, rooms, and if anybody wants to know: hooks, lost ARGV topic, lease
--   (INCARNATION.COUNT), when it ends as far as the node knows and how long a lease is (in
--         milliseconds of this server), how long the version of an empty room is kept; how many
--         entries the stream keeps; then for each user name (or '' for those without one, or the field of a
--         connection), connections, info (or '')
-- Answers the versions of the list before and after; or false, and nothing is done, when the lease
-- may be over: then others may have reaped it, and would not do so again.

local topic, lease, ends, span, tail, limit = unpack(ARGV, 1, 6)

-- Further ahead than a lease is long: the clock was set back.
local left = tonumber(ends) - micros() / 1000
if left < 0 or left > tonumber(span) then
  return false
end

clear_foreign()
local before = version_of()
local was_occupied = is_occupied()
local run = string.match(lease, '^%x+%.')
local function field_at(at)
  return ARGV[at] == '' and '@anonymous' or ARGV[at]
end
-- All are read before the first is written: one may be in a newer format.
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
      -- It keeps its place: what is said again is not the newest.
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
