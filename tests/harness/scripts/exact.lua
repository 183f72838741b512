-- Hands out `left` requests, `depth` at a time, over `paths` in turn; then every connection idles.
-- The count is taken in delay(), which wrk calls once before each batch; request() is also called to probe.
local turn = 0

function delay()
  if left <= 0 then
    return 3600000
  end
  left = left - depth
  return 0
end

function request()
  local batch = {}
  for i = 1, depth do
    batch[i] = wrk.format("GET", paths[turn % #paths + 1])
    turn = turn + 1
  end
  return table.concat(batch)
end
