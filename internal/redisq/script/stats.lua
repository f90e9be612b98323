-- ARGV: the most tenants to look at, then routes. Gives for each route how many
-- it holds, how many are due, and how many are leased. Due is counted over the
-- tenants whose turn has come; the most bounds that.
local most, out = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local route, due = ARGV[i], 0
  for _, tenant in ipairs(redis.call('ZRANGE', turn(route), '-inf', text(now), 'BYSCORE', 'LIMIT', 0, most)) do
    due = due + redis.call('ZCOUNT', set(route, tenant), '-inf', text(now))
  end
  out[#out + 1] = tonumber(redis.call('HGET', base .. ':depth', route) or 0)
  out[#out + 1] = due
  out[#out + 1] = redis.call('HLEN', lease(route))
end
return out
