-- Sends one row of 1024 FP32 in Open Inference binary form and requests a binary answer.
local header = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1024],"parameters":{"binary_data_size":4096}}],'
  .. '"outputs":[{"name":"y","parameters":{"binary_data":true}}]}'

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = string.format("%d", #header)
wrk.body = header .. string.rep("\0\0\0\63", 1024) -- every number is 0.5

local folder = debug.getinfo(1, "S").source:match("@?(.*/)") or "./"
dofile(folder .. "summary.lua")
