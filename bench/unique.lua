-- Send requests with unique bodies: each body is a prepared row with a new six-digit number inserted.
-- BENCH_BODIES names a file with one row per line, `head<TAB>tail`; the number is inserted between the two parts.
-- BENCH_KEY, if set, is sent as x-api-key.
local heads, tails = {}, {}
for line in io.lines(os.getenv("BENCH_BODIES")) do
  local head, tail = line:match("^(.*)\t(.*)$")
  heads[#heads + 1], tails[#tails + 1] = head, tail
end

local count, sent, number = #heads, 0, tonumber(os.getenv("BENCH_FIRST"))
local prefix = {}

function init()
  wrk.headers["Content-Type"] = "application/json"
  local key = os.getenv("BENCH_KEY")
  if key and key ~= "" then wrk.headers["X-Api-Key"] = key end
  local request = wrk.format("POST", nil, nil, "")
  for i = 1, count do
    local length = "Content-Length: " .. (#heads[i] + 6 + #tails[i])
    prefix[i] = request:gsub("Content%-Length: 0", length) .. heads[i]
  end
end

function request()
  sent = sent + 1
  number = number + 1
  if number > 999998 then number = 100000 end
  local i = sent % count + 1
  return prefix[i] .. number .. tails[i]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"answered": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
