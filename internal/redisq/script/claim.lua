-- ARGV: n, lease, token, then pairs of route and weight, the heaviest first.
-- Gives the delay until the next number may be claimed (-1: there is none),
-- then groups of route, tenant, n and n numbers.
local n, till, token = tonumber(ARGV[1]), text(now + tonumber(ARGV[2])), ARGV[3]
local out, got = { -1 }, 0
local quantum = 5 -- numbers that a tenant's turn is worth, where it has them

-- take claims at most want numbers of one route, dealt evenly to the tenants
-- that were served longest ago. Each has a turn of some numbers, so that a
-- claim looks at few sets; who finds no room has the first turn next time.
local function take(route, want)
  local due = redis.call('ZRANGE', turn(route), '-inf', text(now), 'BYSCORE', 'LIMIT', 0, math.ceil(want / quantum))
  local served, tokens, left = {}, {}, want
  while left > 0 and #due > 0 do
    local each, more = math.max(quantum, math.floor(left / #due)), {}
    for _, tenant in ipairs(due) do
      local k = math.min(each, left)
      if k == 0 then break end
      served[tenant] = true
      local numbers = redis.call('ZRANGE', set(route, tenant), '-inf', text(now), 'BYSCORE', 'LIMIT', 0, k)
      if #numbers > 0 then
        local scores = {}
        out[#out + 1], out[#out + 2], out[#out + 3] = route, tenant, #numbers
        for _, number in ipairs(numbers) do
          scores[#scores + 1], scores[#scores + 2] = till, number
          tokens[#tokens + 1], tokens[#tokens + 2] = number, token
          out[#out + 1] = number
        end
        parts(scores, function(...) redis.call('ZADD', set(route, tenant), 'XX', ...) end)
        left = left - #numbers
      end
      if #numbers == k then more[#more + 1] = tenant end
    end
    due = more
  end
  parts(tokens, function(...) redis.call('HSET', lease(route), ...) end)
  local names = {}
  for tenant in pairs(served) do names[#names + 1] = tenant end
  touch(route, names, true)
  got = got + want - left
end

-- Each route that has due work gets its share, the heaviest what is left over
-- by rounding; then whoever still has due work.
local busy, weights, rest = {}, 0, n
for i = 4, #ARGV, 2 do
  if #redis.call('ZRANGE', turn(ARGV[i]), '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 1) > 0 then
    busy[#busy + 1] = { route = ARGV[i], weight = tonumber(ARGV[i + 1]) }
    weights = weights + tonumber(ARGV[i + 1])
  end
end
for _, b in ipairs(busy) do
  b.share = math.max(1, math.floor(n * b.weight / weights))
  rest = rest - b.share
end
for i, b in ipairs(busy) do
  local want = math.min(b.share + (i == 1 and math.max(rest, 0) or 0), n - got)
  if want > 0 then take(b.route, want) end
end
for _, b in ipairs(busy) do
  if got < n then take(b.route, n - got) end
end

for i = 4, #ARGV, 2 do
  local first = redis.call('ZRANGE', turn(ARGV[i]), 0, 0, 'WITHSCORES')[2]
  if first then
    local wait = math.max(0, tonumber(first) - now)
    if out[1] < 0 or wait < out[1] then out[1] = wait end
  end
end
return out
