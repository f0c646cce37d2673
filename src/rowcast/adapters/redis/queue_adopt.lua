-- Gives one message of a dead worker to another worker, and removes dead workers that have no messages.
--
-- A worker is dead if its key has expired. The idle time of a message would not show this, because a message can take
-- long to score. KEYS: the queue and the hash of workers. ARGV: the group, the requesting worker, and the prefix of the
-- workers' keys. The result is the message and the number of its deliveries, or nothing.
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for place = 1, #info, 2 do
    fields[info[place]] = info[place + 1]
  end
  local worker = fields['name']
  if worker ~= ARGV[2] and redis.call('EXISTS', ARGV[3] .. worker) == 0 then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, worker)
    if pending[1] then
      local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, pending[1][1])
      if claimed[1] and claimed[1][1] then
        return {claimed[1], pending[1][4] + 1}
      end
      redis.call('XACK', KEYS[1], ARGV[1], pending[1][1])
    else
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], worker)
      redis.call('HDEL', KEYS[2], worker)
    end
  end
end
return false
