-- The position of a room, shared by the scripts that publish and read. The meta hash holds:
--   epoch    the present epoch of the log
--   offset   the newest offset
--   replid   the replication id of the data set that both belong to
--   ends     the present epoch, then pairs " EPOCH OFFSET": the ended epochs, oldest first
--   #...     the records of publishers' keys; see publish.lua
-- Redis changes its replication id when it restarts or a replica is promoted, that is, whenever the
-- end of a log may be lost although every key looks well. Then the epoch ends. The log, its entries
-- and the publishers' keys stay, and the next epoch goes on with the next offset: an ended epoch is
-- remembered with the offset at which it ended, and positions up to there stay valid.

local EPOCH = '^' .. string.rep('%x', 16) .. '$'
-- Not an epoch of a room: in `ends` it stands for an epoch that was lost.
local UNKNOWN = string.rep('0', 16)
local MAX_ENDS = 8

-- An offset that a script wrote, or nil.
local function offset_in(text)
  local offset = tonumber(string.match(text or '', '^%d+$'))
  return offset and offset < 2 ^ 53 and offset or nil
end

-- The position of a room: epoch (nil if the hash has none), offset, ends (a text), the replication
-- id of this moment, and whether the epoch is over because the data set is another one. Or false
-- and an error.
local function position_of(meta)
  local replid, failure = data_set()
  if not replid then
    return false, failure
  end
  local known = redis.pcall('HMGET', meta, 'epoch', 'offset', 'replid', 'ends')
  if is_foreign(known) then
    redis.call('DEL', meta)
    known = {}
  elseif known.err then
    return false, known
  end
  local epoch = string.match(known[1] or '', EPOCH)
  local offset = offset_in(known[2])
  local ends = ''
  -- A node of the version before this one begins an epoch without them: then they are of another
  -- log.
  if epoch and known[4] and string.sub(known[4], 1, 16) == epoch then
    ends = string.sub(known[4], 17)
  end
  local is_over = not epoch or not offset or known[3] ~= replid
  return { epoch = epoch, offset = offset or 0, ends = ends, replid = replid, is_over = is_over }
end

-- The offset at which an epoch ended, or nil if it is not remembered.
local function end_of(room, epoch)
  local at = epoch ~= UNKNOWN and string.match(room.ends, ' ' .. epoch .. ' (%d+)')
  return at and tonumber(at) or nil
end

-- The offset at which the present epoch began.
local function start_of(room)
  return tonumber(string.match(room.ends, ' (%d+)$')) or 0
end

-- Whether a position is in the log or was before it was trimmed: nothing up to it was lost.
local function is_valid(room, epoch, offset)
  local newest = epoch == room.epoch and room.offset or end_of(room, epoch)
  return newest ~= nil and offset <= newest
end

-- The identifier that the stream gave last, as an offset; it does not go back when entries are
-- deleted. A value that is no log of ours is deleted.
local function last_id(log)
  local stream = redis.pcall('XINFO', 'STREAM', log)
  local last = 0
  for at = 1, stream.err and 0 or #stream, 2 do
    if stream[at] == 'last-generated-id' then
      last = offset_in(string.match(stream[at + 1], '^%d+'))
    end
  end
  if is_foreign(stream) or not last then
    redis.call('DEL', log)
    return 0
  end
  return last
end

-- Ends the epoch and begins another that goes on behind everything that is there. The position is
-- written first: it is what may be refused.
local function begin(meta, log, room, epoch, ttl)
  local last = math.max(room.offset, last_id(log))
  local ends = room.ends
  if room.epoch or last > 0 then
    ends = ends .. ' ' .. (room.epoch or UNKNOWN) .. ' ' .. digits(last)
  end
  local _, count = string.gsub(ends, ' %x+ %d+', '')
  for _ = MAX_ENDS + 1, count do
    ends = string.gsub(ends, '^ %x+ %d+', '', 1)
  end
  redis.call('HSET', meta, 'epoch', epoch, 'offset', digits(last), 'replid', room.replid,
    'ends', epoch .. ends)
  redis.call('PEXPIRE', meta, ttl)
  room.epoch, room.offset, room.ends, room.is_over = epoch, last, ends, false
end
