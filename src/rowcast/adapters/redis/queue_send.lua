-- Adds a message to the queue, unless the queue is full.
--
-- KEYS[1] is the queue. ARGV: the maximum number of messages in the queue, the lifetime of the message in milliseconds,
-- and the fields of the message. The result is the id of the message, or nothing if the queue is full.
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  return false
end
local time = redis.call('TIME')
local expires = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[2])
return redis.call('XADD', KEYS[1], '*', 'expires', string.format('%.0f', expires), unpack(ARGV, 3))
