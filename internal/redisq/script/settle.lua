-- ARGV: token, then groups of route, tenant, n, m, then n numbers that are done
-- and m times a number that waits again and its delay. Only what the token
-- still holds is touched. Gives how many that were.
local token, i, held = ARGV[1], 2, 0

-- mine gives those of the numbers that the token holds.
local function mine(route, numbers)
  local kept, at = {}, 0
  parts(numbers, function(...)
    for k, holder in ipairs(redis.call('HMGET', lease(route), ...)) do
      if holder == token then kept[numbers[at + k]] = true end
    end
    at = at + select('#', ...)
  end)
  return kept
end

while i <= #ARGV do
  local route, tenant, n, m = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local numbers, delays = {}, {}
  for k = i + 4, i + 3 + n do numbers[#numbers + 1] = ARGV[k] end
  for k = i + 4 + n, i + 2 + n + 2 * m, 2 do
    numbers[#numbers + 1] = ARGV[k]
    delays[ARGV[k]] = tonumber(ARGV[k + 1])
  end
  i = i + 4 + n + 2 * m
  local done, scores, free = {}, {}, {}
  local kept = mine(route, numbers)
  for _, number in ipairs(numbers) do
    if kept[number] then
      held = held + 1
      if delays[number] then
        scores[#scores + 1], scores[#scores + 2] = text(now + delays[number]), number
        free[#free + 1] = number
      else
        done[#done + 1] = number
      end
    end
  end
  drop(route, tenant, done)
  parts(scores, function(...) redis.call('ZADD', set(route, tenant), 'XX', ...) end)
  parts(free, function(...) redis.call('HDEL', lease(route), ...) end)
  touch(route, tenant, false)
end
return held
