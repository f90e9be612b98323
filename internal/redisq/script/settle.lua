-- ARGV: token, then groups of route, tenant, n, m, then n numbers that are done
-- and m times a number that waits again and its delay. Only what the token
-- still holds is touched. Gives how many that were.
local token, i, held = ARGV[1], 2, 0
local groups, numbers, routes = {}, {}, {}

while i <= #ARGV do
  local g = { route = ARGV[i], tenant = ARGV[i + 1], done = {}, again = {} }
  local n, m = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  if not numbers[g.route] then
    numbers[g.route] = {}
    routes[#routes + 1] = g.route
  end
  local all = numbers[g.route]
  for k = i + 4, i + 3 + n do
    g.done[#g.done + 1], all[#all + 1] = ARGV[k], ARGV[k]
  end
  for k = i + 4 + n, i + 2 + n + 2 * m, 2 do
    g.again[#g.again + 1], all[#all + 1] = { ARGV[k], tonumber(ARGV[k + 1]) }, ARGV[k]
  end
  groups[#groups + 1] = g
  i = i + 4 + n + 2 * m
end

-- mine are those of the numbers that the token holds.
local mine = {}
for _, route in ipairs(routes) do
  local kept, at, all = {}, 0, numbers[route]
  parts(all, function(...)
    for k, holder in ipairs(redis.call('HMGET', lease(route), ...)) do
      if holder == token then
        mine[all[at + k]] = true
        kept[#kept + 1] = all[at + k]
      end
    end
    at = at + select('#', ...)
  end)
  held = held + #kept
  free(route, kept)
end

local tenants = {}
for _, g in ipairs(groups) do
  local done, scores = {}, {}
  for _, number in ipairs(g.done) do
    if mine[number] then done[#done + 1] = number end
  end
  for _, a in ipairs(g.again) do
    if mine[a[1]] then scores[#scores + 1], scores[#scores + 2] = text(now + a[2]), a[1] end
  end
  drop(g.route, g.tenant, done)
  parts(scores, function(...) redis.call('ZADD', set(g.route, g.tenant), 'XX', ...) end)
  tenants[g.route] = tenants[g.route] or {}
  table.insert(tenants[g.route], g.tenant)
end
for _, route in ipairs(routes) do touch(route, tenants[route], false) end
return held
