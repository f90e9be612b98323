-- ARGV: groups of route, tenant, n and n numbers, which are taken out whoever
-- holds them. Gives how many were there.
local i, gone = 1, 0
while i <= #ARGV do
  local route, tenant, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local numbers = {}
  for k = i + 3, i + 2 + n do numbers[#numbers + 1] = ARGV[k] end
  i = i + 3 + n
  gone = gone + drop(route, tenant, numbers)
  free(route, numbers)
  touch(route, { tenant }, false)
end
return gone
