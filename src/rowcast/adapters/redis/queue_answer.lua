-- Sends replies and removes their messages. A message that is no longer in the queue gets no reply.
--
-- KEYS[1] is the queue, and the other keys are the streams of replies, one per message. ARGV: the group, the lifetime of
-- a stream of replies in milliseconds, and for each message its id, its number and its reply. The result is the number
-- of replies sent.
local streams, replies, count = {}, {}, 0
for place = 2, #KEYS do
  local at = place * 3 - 3
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[at]) == 1 then
    redis.call('XDEL', KEYS[1], ARGV[at])
    local stream = KEYS[place]
    if not replies[stream] then
      replies[stream] = {}
      streams[#streams + 1] = stream
    end
    local fields = replies[stream]
    fields[#fields + 1] = ARGV[at + 1]
    fields[#fields + 1] = ARGV[at + 2]
    count = count + 1
  end
end
for _, stream in ipairs(streams) do
  redis.call('XADD', stream, '*', unpack(replies[stream]))
  redis.call('PEXPIRE', stream, ARGV[2])
end
return count
