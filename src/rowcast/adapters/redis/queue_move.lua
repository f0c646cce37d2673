-- Moves a message that a worker has taken to the end of a stream, and sends a reply if there is a third key.
--
-- KEYS: the queue, the stream that receives the message and, optionally, the stream of replies. ARGV: the group, the id
-- of the message, the lifetime of a stream of replies in milliseconds, the number of the message, the reply, and the
-- fields of the moved message. The result is 1, or 0 if the message is no longer in the queue.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6))
if KEYS[3] then
  redis.call('XADD', KEYS[3], '*', ARGV[4], ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
return 1
