-- ARGV: groups of route, tenant, n, then n times number and delay. Gives how
-- many were not there yet.
local i, added = 1, 0
while i <= #ARGV do
  local route, tenant, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local args, first = {}, math.huge
  for k = i + 3, i + 1 + 2 * n, 2 do
    local at = now + tonumber(ARGV[k + 1])
    first = math.min(first, at)
    args[#args + 1] = text(at)
    args[#args + 1] = ARGV[k]
  end
  i = i + 3 + 2 * n
  local new = 0
  parts(args, function(...) new = new + redis.call('ZADD', set(route, tenant), 'NX', ...) end)
  if new > 0 then
    redis.call('HINCRBY', base .. ':depth', route, new)
    added = added + new
  end
  -- Too early a turn costs a look; a lost one would cost the tenant its turns.
  redis.call('ZADD', turn(route), 'LT', text(first), tenant)
end
return added
