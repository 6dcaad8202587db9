-- Prints one line of JSON at the end, because wrk rounds the numbers in its text.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'summary {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
