-- Appends a publication to a room's log and sends it to everyone who follows, or does nothing.
--   KEYS  log, meta, and where the publisher's key is remembered (absent without a key)
--   ARGV  topic, body, an epoch in case a new one is needed, how many messages the log keeps,
--         and in milliseconds how long the log, the meta and the key live
-- Answers epoch and offset. With a key that is remembered they are the first publication's, and
-- nothing is added; a key of an ended epoch is not remembered, because its message is lost.

local log, meta, key = KEYS[1], KEYS[2], KEYS[3]
local topic, body, candidate, size, log_ttl, meta_ttl, key_ttl = unpack(ARGV)

local epoch, offset, replid = standing(meta)
if epoch == false then
  return offset
end
if key and epoch then
  -- What is no text is an error, and no key of ours.
  local known = redis.pcall('GET', key)
  local first, at = string.match(type(known) == 'string' and known or '', '^(%x+) (%d+)$')
  if first == epoch then
    return { first, at }
  end
end

-- The identifier of an entry is its offset, so Redis itself refuses to append to a log that is
-- ahead of the meta. That is the only write that may fail, and it comes before all others.
local function append(call, at)
  return call('XADD', log, 'MAXLEN', '=', size, digits(at) .. '-0', 'b', body)
end

local added = epoch and append(redis.pcall, offset + 1)
if added and added.err and not is_foreign(added)
  and not string.find(added.err, 'equal or smaller', 1, true) then
  return added
end
if not added or added.err then
  begin(meta, log, candidate, replid, meta_ttl)
  epoch, offset = candidate, 0
  append(redis.call, 1)
end

local at = digits(offset + 1)
redis.call('HSET', meta, 'offset', at)
redis.call('PEXPIRE', meta, meta_ttl)
redis.call('PEXPIRE', log, log_ttl)
if key then
  redis.call('SET', key, epoch .. ' ' .. at, 'PX', key_ttl)
end
redis.call('PUBLISH', topic, '1 ' .. epoch .. ' ' .. at .. ' ' .. body)
return { epoch, at }
