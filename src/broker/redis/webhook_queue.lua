-- One call of a node that delivers the events that webhook_event.lua has appended. The nodes share
-- the stream by a group, whose consumers are their incarnations. Only one of them holds events at a
-- time, so that all are delivered in order: the one for which they are pending. It must call again
-- before `claim` is over.
--   KEYS  the stream, and the count of dropped events
--   ARGV  the node's incarnation; 'take', or 'keep' to get no more than it holds, or 'leave' to
--         release that too; how many it may hold; and in milliseconds: after what silence it loses
--         them, how long an event is kept, after what silence a node without events is removed;
--         then the ids that are done
-- Returns how many events were dropped since the last call of any node, and a list of { id, body }.

local GROUP = 'nodes'

local hooks, lost = KEYS[1], KEYS[2]
local me, mode, count, claim, age, forgotten = unpack(ARGV, 1, 6)
local done = { unpack(ARGV, 7) }

-- The number of dropped events. The key may hold any value.
local function count_lost()
  local counted = redis.pcall('GETDEL', lost)
  if is_foreign(counted) then
    redis.call('DEL', lost)
  end
  local number = tonumber(string.match(type(counted) == 'string' and counted or '', '^%d+$')) or 0
  return number < 2 ^ 53 and number or 0
end

heal('XLEN', hooks)
if redis.call('EXISTS', hooks) == 0 then
  return { count_lost(), {} }
end
local nodes = redis.pcall('XINFO', 'CONSUMERS', hooks, GROUP)
if nodes.err then
  if not string.find(nodes.err, 'NOGROUP', 1, true) then
    return nodes
  end
  redis.call('XGROUP', 'CREATE', hooks, GROUP, '0')
  nodes = {}
end

if #done > 0 then
  redis.call('XACK', hooks, GROUP, unpack(done))
  redis.call('XDEL', hooks, unpack(done))
end
local dropped = count_lost()
dropped = dropped + redis.call('XTRIM', hooks, 'MINID', '=', digits(millis() - age))

-- Entries as { id, body }. Of one that was dropped while it was pending only the id is left; it is
-- no longer pending.
local function bodies(entries)
  local found = {}
  for _, entry in ipairs(entries) do
    local id, fields = entry[1], entry[2]
    if not fields then
      redis.call('XACK', hooks, GROUP, id)
    else
      found[#found + 1] = { id, fields[1] == 'b' and fields[2] or '' }
    end
  end
  return found
end

local function read(from)
  local answer = redis.call(
    'XREADGROUP', 'GROUP', GROUP, me, 'COUNT', count, 'STREAMS', hooks, from)
  return answer and answer[1] and bodies(answer[1][2]) or {}
end

-- The entries that the node holds. Reading them again restarts their idle time.
local held = read('0')
if mode == 'leave' then
  if #held == 0 then
    redis.call('XGROUP', 'DELCONSUMER', hooks, GROUP, me)
  end
  for _, entry in ipairs(held) do
    redis.call('XCLAIM', hooks, GROUP, me, '0', entry[1], 'IDLE', claim, 'JUSTID')
  end
  return { dropped, {} }
end
if #held > 0 or mode == 'keep' then
  return { dropped, held }
end

local elsewhere = 0
for _, node in ipairs(nodes) do
  local known = {}
  for i = 1, #node, 2 do
    known[node[i]] = node[i + 1]
  end
  if known.name ~= me then
    elsewhere = elsewhere + known.pending
    if known.pending == 0 and known.idle > tonumber(forgotten) then
      redis.call('XGROUP', 'DELCONSUMER', hooks, GROUP, known.name)
    end
  end
end
if elsewhere == 0 then
  return { dropped, read('>') }
end
local claimed = redis.call('XAUTOCLAIM', hooks, GROUP, me, claim, '0-0', 'COUNT', count)
return { dropped, bodies(claimed[2]) }
