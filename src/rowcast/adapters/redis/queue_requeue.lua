-- Moves a parked message back to the queue, with a new lifetime.
--
-- KEYS: the parked messages and the queue. ARGV: the id of the message and its lifetime in milliseconds. The result is 1,
-- or 0 if the message is not parked.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if not found[1] then
  return 0
end
local time = redis.call('TIME')
local expires = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[2])
local fields = {'expires', string.format('%.0f', expires)}
for place = 1, #found[1][2], 2 do
  local name = found[1][2][place]
  if name == 'sender' or name == 'number' or name == 'digest' or name == 'body' then
    fields[#fields + 1] = name
    fields[#fields + 1] = found[1][2][place + 1]
  end
end
redis.call('XADD', KEYS[2], '*', unpack(fields))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
