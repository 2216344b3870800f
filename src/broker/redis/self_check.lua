-- Tries each command that nodes and their scripts call, on keys that nothing else uses, and the
-- access to each key of the prefix. Leaves nothing behind. A unit test compares the commands with
-- the scripts.
--   KEYS  four keys to write: a stream, a hash, a sorted set and a string; then the keys to which
--         only access is tried
--   ARGV  topics on which messages are published
-- Returns what failed, as { what, error }.

local stream, hash, set, text = unpack(KEYS, 1, 4)
local failed = {}

-- Returns whether it did not fail.
local function try(what, ...)
  local reply = redis.pcall(...)
  local is_error = type(reply) == 'table' and reply.err ~= nil
  if is_error then
    failed[#failed + 1] = { what, reply.err }
  end
  return not is_error
end

-- Without it, something would be left behind.
if not try('DEL', 'DEL', stream, hash, set, text) then
  return failed
end

try('INFO', 'INFO', 'replication')
try('TIME', 'TIME')

try('XADD', 'XADD', stream, '1-0', 'b', '1')
try('XADD', 'XADD', stream, '2-0', 'b', '1')
try('XRANGE', 'XRANGE', stream, '-', '+', 'COUNT', 1)
try('XREVRANGE', 'XREVRANGE', stream, '+', '-', 'COUNT', 1)
try('XLEN', 'XLEN', stream)
try('XTRIM', 'XTRIM', stream, 'MAXLEN', '=', 2)
if try('XGROUP|CREATE', 'XGROUP', 'CREATE', stream, 'g', '0') then
  try('XREADGROUP', 'XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', 1, 'STREAMS', stream, '>')
  try('XAUTOCLAIM', 'XAUTOCLAIM', stream, 'g', 'c', '0', '0-0', 'COUNT', 1)
  try('XINFO|STREAM', 'XINFO', 'STREAM', stream)
  try('XINFO|CONSUMERS', 'XINFO', 'CONSUMERS', stream, 'g')
  try('XCLAIM', 'XCLAIM', stream, 'g', 'c', '0', '1-0', 'JUSTID')
  try('XACK', 'XACK', stream, 'g', '1-0')
  try('XGROUP|DELCONSUMER', 'XGROUP', 'DELCONSUMER', stream, 'g', 'c')
end
try('XDEL', 'XDEL', stream, '1-0')
try('EXISTS', 'EXISTS', stream)
try('PEXPIRE', 'PEXPIRE', stream, 60000)
try('PTTL', 'PTTL', stream)
try('PERSIST', 'PERSIST', stream)

try('HSET', 'HSET', hash, 'a', '1')
try('HGET', 'HGET', hash, 'a')
try('HMGET', 'HMGET', hash, 'a')
try('HGETALL', 'HGETALL', hash)
try('HSCAN', 'HSCAN', hash, '0', 'COUNT', 1)
try('HLEN', 'HLEN', hash)
try('HRANDFIELD', 'HRANDFIELD', hash, 1)
try('HEXISTS', 'HEXISTS', hash, 'a')
try('HDEL', 'HDEL', hash, 'a')

try('ZADD', 'ZADD', set, '1', 'a')
try('ZCARD', 'ZCARD', set)
try('ZRANDMEMBER', 'ZRANDMEMBER', set, 1)
try('ZSCORE', 'ZSCORE', set, 'a')
try('ZRANGE', 'ZRANGE', set, 0, 0)
try('ZUNIONSTORE', 'ZUNIONSTORE', set, 1, set)
try('ZRANGEBYLEX', 'ZRANGEBYLEX', set, '-', '+', 'LIMIT', 0, 1)
try('ZRANGEBYSCORE', 'ZRANGEBYSCORE', set, '-inf', '+inf', 'LIMIT', 0, 1)
try('ZREMRANGEBYSCORE', 'ZREMRANGEBYSCORE', set, '-inf', '0')
try('ZREM', 'ZREM', set, 'a')

try('SET', 'SET', text, '1', 'PX', 60000)
try('GET', 'GET', text)
try('INCRBY', 'INCRBY', text, 1)
try('GETDEL', 'GETDEL', text)

-- A value of another type has been reached as well.
for at = 5, #KEYS do
  for _, command in ipairs({ 'HGET', 'HDEL' }) do
    local reply = redis.pcall(command, KEYS[at], 'a')
    local why = type(reply) == 'table' and reply.err
    if why and not string.find(why, 'WRONGTYPE', 1, true) then
      failed[#failed + 1] = { 'key ' .. KEYS[at], why }
    end
  end
end
for _, topic in ipairs(ARGV) do
  try('PUBLISH', 'PUBLISH', topic, '')
end

redis.call('DEL', stream, hash, set, text)
return failed
