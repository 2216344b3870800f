-- What both scripts know of a room. Its meta hash says where the room stands:
--   epoch   the life of its log       offset   its newest       replid   the data set that both belong to
-- Redis changes its replication id when it restarts or a replica is promoted, that is, whenever the
-- end of a log may have been lost although every key looks well. Then the epoch ends.

-- Whether an error says that a key holds another type of value than ours: somebody else wrote it.
local function is_foreign(reply)
  return reply.err and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end

-- Epoch (nil when it has ended or never began), offset, and the replication id of this moment; or
-- false and an error.
local function standing(meta)
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    return false, redis.error_reply('READONLY this server is not the master')
  end
  local replid = string.match(info, 'master_replid:(%w+)') or '-'
  local known = redis.pcall('HMGET', meta, 'epoch', 'offset', 'replid')
  if is_foreign(known) then
    redis.call('DEL', meta)
    known = {}
  elseif known.err then
    return false, known
  end
  local epoch = string.match(known[1] or '', '^' .. string.rep('%x', 16) .. '$')
  local offset = tonumber(string.match(known[2] or '', '^%d+$'))
  if not epoch or not offset or offset >= 2 ^ 53 or known[3] ~= replid then
    return nil, 0, replid
  end
  return epoch, offset, replid
end

-- Offsets are whole numbers below 2^53; Lua would write the greater ones like 1e+15.
local function digits(offset)
  return string.format('%.0f', offset)
end

-- Begins an epoch with an empty log. The position is written first: it is what may be refused.
local function begin(meta, log, epoch, replid, ttl)
  redis.call('HSET', meta, 'epoch', epoch, 'offset', '0', 'replid', replid)
  redis.call('PEXPIRE', meta, ttl)
  redis.call('DEL', log)
end
