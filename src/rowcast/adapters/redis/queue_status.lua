-- Describes the queue. KEYS: the queue and the hash of workers. ARGV: the group and the prefix of the workers' keys.
--
-- The result is the number of messages, the age of the oldest message that no worker has taken, in milliseconds, the
-- time of the Redis server in milliseconds, and the descriptions of the live workers.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local age = 0
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for place = 1, #info, 2 do
    fields[info[place]] = info[place + 1]
  end
  if fields['name'] == ARGV[1] then
    local waiting = redis.call('XRANGE', KEYS[1], '(' .. fields['last-delivered-id'], '+', 'COUNT', 1)
    if waiting[1] then
      age = now - tonumber(string.match(waiting[1][1], '^%d+'))
    end
  end
end
local workers = {}
local described = redis.call('HGETALL', KEYS[2])
for place = 1, #described, 2 do
  if redis.call('EXISTS', ARGV[2] .. described[place]) == 1 then
    workers[#workers + 1] = described[place + 1]
  end
end
return {redis.call('XLEN', KEYS[1]), age, string.format('%.0f', now), workers}
