-- Charges quotas with the generic cell rate algorithm. The state of a quota is the time until it is full again.
--
-- KEYS are the quotas. ARGV contains three numbers for each key: the rows to charge, the number of rows in the quota and
-- the period of the quota in seconds. The reply contains a pair for each key: 1 if the rows were charged or 0 if they
-- exceed the quota, and the time until the quota is full again, in seconds.
--
-- The state is counted in microseconds times the number of rows in the quota. Each row then costs a whole number, so that
-- a quota of N rows allows exactly N rows. It is stored with the time of the last charge, in microseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local replies = {}
for number, key in ipairs(KEYS) do
  local rows = tonumber(ARGV[3 * number - 2])
  local limit = tonumber(ARGV[3 * number - 1])
  local period = tonumber(ARGV[3 * number]) * 1000000
  local used = 0
  local state = redis.call('GET', key)
  if state then
    local before, at = string.match(state, '^(%d+) (%d+)$')
    if before then
      used = math.max(0, tonumber(before) - math.max(0, now - tonumber(at)) * limit)
    end
  end
  local after = used + rows * period
  local accepted = 0
  if after <= limit * period * (1 + 1e-9) then
    accepted, used = 1, after
    if used > 0 then
      local lifetime = math.ceil(used / limit / 1000)
      redis.call('SET', key, string.format('%.0f %.0f', used, now), 'PX', string.format('%.0f', lifetime))
    end
  end
  replies[number] = {accepted, string.format('%.17g', used / limit / 1000000)}
end
return replies
