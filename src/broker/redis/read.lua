-- Reads a page of a room's log, and checks whether the log has lost its end.
--   KEYS  log, meta
--   ARGV  'top', 'after' or 'before'; epoch and offset of 'after', or '' and the offset of 'before'
--         ('' for the newest); how many messages and bytes the page may have; an epoch in case a
--         new one is needed; and in milliseconds how long the meta lives when the room has messages
--         and when it never had any
-- A position of 'after' is one that a node has delivered. In the present epoch the page begins
-- behind it; in an ended one behind it or behind the end of that epoch, whichever comes first; in
-- an epoch that is not remembered where the present epoch began, and for the epoch of zeros at the
-- oldest entry. Returns epoch, newest offset, oldest offset in the log, the ended epochs (" EPOCH
-- OFFSET" each), in milliseconds how long the log lives without another publish, and a list of
-- identifier, body, identifier, body ...

local log, meta = KEYS[1], KEYS[2]
local range, since_epoch, since, limit, bytes, candidate, meta_ttl, idle_ttl = unpack(ARGV)
limit, bytes = tonumber(limit), tonumber(bytes)

local room, failure = position_of(meta)
if not room then
  return failure
end

local function offset_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
if last.err and not is_foreign(last) then
  return last
end
local newest = last[1] and offset_of(last[1]) or nil
-- A delivered offset was in the log: a newest offset below it shows that the log has lost its end.
-- So does a last entry that differs from the newest offset, unless it did when the epoch began.
local behind = range == 'after' and since_epoch == room.epoch and tonumber(since) > room.offset
local torn = newest
  and (newest > room.offset or newest < room.offset and start_of(room) < room.offset)
if room.is_over or behind or torn or last.err then
  begin(meta, log, room, candidate, room.offset > 0 and meta_ttl or idle_ttl)
  -- A log that was found without its position has set the offset.
  if room.offset > 0 then
    redis.call('PEXPIRE', meta, meta_ttl)
  end
else
  local ttl = tonumber(room.offset > 0 and meta_ttl or idle_ttl)
  if redis.call('PTTL', meta) < ttl * 0.9 then
    redis.call('PEXPIRE', meta, ttl)
  end
end
local page, top = {}, room.offset
local oldest = newest and redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if not oldest then
  return { room.epoch, digits(top), digits(top + 1), room.ends, '0', page }
end

-- Entries are fetched a few at a time, as many as fit by the greatest so far, because a page's
-- worth of great ones could be a gigabyte.
local function fetch(command, from, to, step)
  local count, greatest = 8, 1
  while limit > 0 and bytes > 0 do
    count = math.min(count, limit)
    local entries = redis.call(command, log, from, to, 'COUNT', count)
    for _, entry in ipairs(entries) do
      local body = entry[2][2]
      if bytes < #body and #page > 0 then
        return
      end
      page[#page + 1] = entry[1]
      page[#page + 1] = body
      greatest = math.max(greatest, #body)
      bytes = bytes - #body
    end
    if #entries < count then
      return
    end
    limit = limit - count
    from = digits(offset_of(entries[count]) + step)
    count = math.max(1, math.floor(bytes / greatest))
  end
end

if range == 'after' then
  local delivered = tonumber(since)
  if since_epoch == UNKNOWN then
    delivered = 0
  elseif since_epoch ~= room.epoch then
    local ended = end_of(room, since_epoch)
    delivered = ended and math.min(delivered, ended) or start_of(room)
  end
  fetch('XRANGE', digits(delivered + 1), '+', 1)
elseif range == 'before' then
  local below = tonumber(since) or top + 1
  if below > 1 then
    fetch('XREVRANGE', digits(below - 1), '-', -1)
  end
end
local left = digits(math.max(redis.call('PTTL', log), 0))
return { room.epoch, digits(top), digits(offset_of(oldest)), room.ends, left, page }
