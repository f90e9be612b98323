-- ARGV: n, lease, token, then pairs of route and share. Gives the delay until
-- the next number may be claimed (-1: there is none), then groups of route,
-- tenant, n and n numbers.
local n, till, token = tonumber(ARGV[1]), text(now + tonumber(ARGV[2])), ARGV[3]
local out, got = { -1 }, 0

-- take claims at most want numbers of one route, dealt evenly to the tenants
-- that were served longest ago.
local function take(route, want)
  local due = redis.call('ZRANGE', turn(route), '-inf', text(now), 'BYSCORE', 'LIMIT', 0, want)
  local served, left = {}, want
  while left > 0 and #due > 0 do
    local each, more = math.max(1, math.floor(left / #due)), {}
    for _, tenant in ipairs(due) do
      local k = math.min(each, left)
      if k == 0 then break end
      served[tenant] = true
      local numbers = redis.call('ZRANGE', set(route, tenant), '-inf', text(now), 'BYSCORE', 'LIMIT', 0, k)
      if #numbers > 0 then
        local scores, tokens = {}, {}
        out[#out + 1], out[#out + 2], out[#out + 3] = route, tenant, #numbers
        for _, number in ipairs(numbers) do
          scores[#scores + 1], scores[#scores + 2] = till, number
          tokens[#tokens + 1], tokens[#tokens + 2] = number, token
          out[#out + 1] = number
        end
        parts(scores, function(...) redis.call('ZADD', set(route, tenant), 'XX', ...) end)
        parts(tokens, function(...) redis.call('HSET', lease(route), ...) end)
        left = left - #numbers
      end
      if #numbers == k then more[#more + 1] = tenant end
    end
    due = more
  end
  for tenant in pairs(served) do touch(route, tenant, true) end
  got = got + want - left
end

-- Each route its share, then whoever still has due work.
for i = 4, #ARGV, 2 do
  local want = math.min(tonumber(ARGV[i + 1]), n - got)
  if want > 0 then take(ARGV[i], want) end
end
for i = 4, #ARGV, 2 do
  if got < n then take(ARGV[i], n - got) end
end

for i = 4, #ARGV, 2 do
  local first = redis.call('ZRANGE', turn(ARGV[i]), 0, 0, 'WITHSCORES')[2]
  if first then
    local wait = math.max(0, tonumber(first) - now)
    if out[1] < 0 or wait < out[1] then out[1] = wait end
  end
end
return out
