-- Arguments after `--`: method, file with one Authorization value per line, form body (may be empty).
-- Each connection sends the values in turn. load.py parses the last line of the output.

local requests, turn = {}, 0

function init(args)
   local method, file, body = args[1], args[2], args[3]
   if body == "" then body = nil end
   for line in io.lines(file) do
      local headers = { ["Authorization"] = line }
      if body then headers["Content-Type"] = "application/x-www-form-urlencoded" end
      requests[#requests + 1] = wrk.format(method, nil, headers, body)
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format("\nRESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
      e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(95),
      latency:percentile(99)))
end
