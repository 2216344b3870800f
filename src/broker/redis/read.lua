-- Reads a page of a room's log, and judges whether the log still is what it was.
--   KEYS  log, meta
--   ARGV  'top', 'after' or 'before'; epoch and offset of 'after', or '' and the offset of 'before'
--         ('' for the newest); how many messages and bytes the page may have; an epoch in case a
--         new one is needed; and in milliseconds how long the meta lives when the room has messages
--         and when it never had any
-- Answers epoch, newest offset, oldest offset in the log, and a list of identifier, body,
-- identifier, body ...

local log, meta = KEYS[1], KEYS[2]
local range, since_epoch, since, limit, bytes, candidate, meta_ttl, idle_ttl = unpack(ARGV)
limit, bytes = tonumber(limit), tonumber(bytes)

local epoch, top, replid = standing(meta)
if epoch == false then
  return top
end

local function offset_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
if last.err and not is_foreign(last) then
  return last
end
local newest = last[1]
-- What was delivered was there: a top below it has lost its tail, and so has a log whose last entry
-- is another than the newest.
local behind = range == 'after' and since_epoch == epoch and tonumber(since) > top
if not epoch or behind or last.err or (newest and offset_of(newest) ~= top) then
  begin(meta, log, candidate, replid, idle_ttl)
  return { candidate, '0', '1', {} }
end

local ttl = tonumber(top > 0 and meta_ttl or idle_ttl)
if redis.call('PTTL', meta) < ttl / 2 then
  redis.call('PEXPIRE', meta, ttl)
end
if not newest then
  return { epoch, digits(top), digits(top + 1), {} }
end

local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local page = {}

-- Entries are fetched a few at a time, as many as fit by the greatest so far, because a page's worth
-- of great ones could be a gigabyte.
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
  fetch('XRANGE', since_epoch == epoch and digits(tonumber(since) + 1) or '-', '+', 1)
elseif range == 'before' then
  local below = tonumber(since) or top + 1
  if below > 1 then
    fetch('XREVRANGE', digits(below - 1), '-', -1)
  end
end
return { epoch, digits(top), digits(offset_of(oldest)), page }
