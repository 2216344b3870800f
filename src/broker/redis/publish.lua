-- Appends a publication to a room's log and publishes it on the room's topic, or does neither.
--   KEYS  log, meta, and the record of the publisher's key, in which nodes of former versions look
--         for it (absent without a key)
--   ARGV  topic, body, an epoch in case a new one is needed, how many messages the log keeps,
--         in milliseconds how long the log, the meta and the key live, and the epoch and the offset
--         that the room must have (empty: any); then with a key: its field in the meta, and the
--         digest of the data
-- Returns epoch and offset. With a remembered key they are those of the first publication, and none
-- is added; or an error if that one had other data. A key counts while its position is valid;
-- otherwise its message is lost.
--
-- A field of a key is "EPOCH OFFSET DIGEST END", its end in milliseconds. It stands beside the
-- position that makes it count, so that losing one, as by eviction, loses both: then the room gets
-- another epoch, which its members see. Expired fields go with the publishes that follow.

local log, meta, key = KEYS[1], KEYS[2], KEYS[3]
local topic, body, candidate, size, log_ttl, meta_ttl, key_ttl, if_epoch, if_offset,
  field, digest = unpack(ARGV)

local room, failure = position_of(meta)
if not room then
  return failure
end
if room.is_over then
  begin(meta, log, room, candidate, meta_ttl)
end

-- The position and the digest of a remembered key; nothing if there is none.
local function remembered()
  local value = redis.call('HGET', meta, field) or ''
  local first, at, known, over = string.match(value, '^(%x+) (%d+) (%x+) (%d+)$')
  if first and tonumber(over) > millis() then
    return first, at, known
  end
  -- A value of another type is an error, and not a key of ours.
  value = redis.pcall('GET', key)
  return string.match(type(value) == 'string' and value or '', '^(%x+) (%d+)$')
end

if key then
  local first, at, known = remembered()
  if first and is_valid(room, first, tonumber(at)) then
    -- Former versions keep no digest.
    if known and known ~= digest then
      return redis.error_reply('KEYREUSED the key was used for other data')
    end
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
  local now, value = millis(), room.epoch .. ' ' .. at
  redis.call('HSET', meta, field, value .. ' ' .. digest .. ' ' .. digits(now + key_ttl))
  redis.call('SET', key, value, 'PX', key_ttl)
  -- Each publish looks at more fields than it adds, so that most of what is there is in use. An
  -- access list of a former version may lack the command; an error has no entries.
  local some = redis.pcall('HRANDFIELD', meta, 4, 'WITHVALUES')
  for i = 1, #some, 2 do
    local is_key = string.sub(some[i], 1, 1) == '#'
    local over = is_key and tonumber(string.match(some[i + 1], ' (%d+)$'))
    if over and over <= now then
      redis.call('HDEL', meta, some[i])
    end
  end
end
-- The message has the format of its body.
redis.call('PUBLISH', topic,
  string.sub(body, 1, 1) .. ' ' .. room.epoch .. ' ' .. at .. ' ' .. body)
return { room.epoch, at }
