-- The first part of the scripts that need it: this server's role, data set and clock, and the form
-- of the numbers and errors that scripts exchange.

-- Formats whole numbers below 2^53; Lua would write great ones like 1e+15.
local function digits(number)
  return string.format('%.0f', number)
end

-- Whether a reply is the error that a key holds another type of value, which other software wrote.
local function is_foreign(reply)
  return type(reply) == 'table' and reply.err ~= nil
    and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end

-- Deletes a key if it holds another type of value than ours, and returns whether it did. `size` is
-- the command that reads the size of ours: HLEN, ZCARD, XLEN. Each script does this for its keys
-- before anything else: an error behind its first write would leave half of its work.
local function heal(size, key)
  local found = is_foreign(redis.pcall(size, key))
  if found then
    redis.call('DEL', key)
  end
  return found
end

-- The replication id, which names the data set; or false and an error if this is not the master.
local function data_set()
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    return false, redis.error_reply('READONLY this server is not the master')
  end
  return string.match(info, 'master_replid:(%w+)') or '-'
end

-- The time since 1970 by this server's clock.
local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function millis()
  return math.floor(micros() / 1000)
end

