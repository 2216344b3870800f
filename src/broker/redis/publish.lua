-- Appends a publication to a room's log and publishes it on the room's topic, or does neither.
--   KEYS  log, meta, and the record of the publisher's key (absent without a key)
--   ARGV  topic, body, an epoch in case a new one is needed, how many messages the log keeps,
--         in milliseconds how long the log, the meta and the key live, and the epoch and the offset
--         that the room must have (empty: any)
-- Returns epoch and offset. With a remembered key they are those of the first publication, and none
-- is added. A key counts while its position is valid; otherwise its message is lost.

local log, meta, key = KEYS[1], KEYS[2], KEYS[3]
local topic, body, candidate, size, log_ttl, meta_ttl, key_ttl, if_epoch, if_offset = unpack(ARGV)

local room, failure = position_of(meta)
if not room then
  return failure
end
if room.is_over then
  begin(meta, log, room, candidate, meta_ttl)
end
if key then
  -- A value of another type is an error, and not a key of ours.
  local known = redis.pcall('GET', key)
  local first, at = string.match(type(known) == 'string' and known or '', '^(%x+) (%d+)$')
  if first and is_valid(room, first, tonumber(at)) then
    return { first, at }
  end
end

local CONFLICT = redis.error_reply('CONFLICT the room is at another position')
if if_epoch ~= '' and (if_epoch ~= room.epoch or tonumber(if_offset) ~= room.offset) then
  return CONFLICT
end

-- The identifier of an entry is its offset, so Redis itself refuses to append to a log that is
-- ahead of the meta. Unless the epoch is over, that is the only write that may fail, and it comes
-- before all others.
local function append(call)
  return call('XADD', log, 'MAXLEN', '=', size, digits(room.offset + 1) .. '-0', 'b', body)
end

local added = append(redis.pcall)
if added.err then
  if not is_foreign(added) and not string.find(added.err, 'equal or smaller', 1, true) then
    return added
  end
  begin(meta, log, room, candidate, meta_ttl)
  if if_epoch ~= '' then
    return CONFLICT
  end
  append(redis.call)
end

local at = digits(room.offset + 1)
redis.call('HSET', meta, 'offset', at)
redis.call('PEXPIRE', meta, meta_ttl)
redis.call('PEXPIRE', log, log_ttl)
if key then
  redis.call('SET', key, room.epoch .. ' ' .. at, 'PX', key_ttl)
end
-- The message has the format of its body.
redis.call('PUBLISH', topic,
  string.sub(body, 1, 1) .. ' ' .. room.epoch .. ' ' .. at .. ' ' .. body)
return { room.epoch, at }
