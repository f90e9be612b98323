-- ARGV: groups of budget, stretch, count and milliseconds left of the period.
-- Notes what each stretch has let through, and gives for each budget the sum
-- over all stretches and how long its period still lasts.
local out = {}
for i = 1, #ARGV, 4 do
  local key, sum = base .. ':limit:' .. ARGV[i], 0
  redis.call('HSET', key, ARGV[i + 1], ARGV[i + 2])
  local left = redis.call('PTTL', key)
  if left < 0 then
    left = tonumber(ARGV[i + 3])
    redis.call('PEXPIRE', key, ARGV[i + 3])
  end
  for _, n in ipairs(redis.call('HVALS', key)) do sum = sum + tonumber(n) end
  out[#out + 1], out[#out + 2] = sum, left
end
return out
