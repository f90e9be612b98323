-- ARGV: groups of budget, stretch, count, milliseconds left of the period, and
-- when the period ends as it was told (0: nothing was told yet). Notes what each
-- stretch has let through, and gives for each budget the sum over all
-- stretches, how long its period still lasts, and when it ends. What comes when
-- its period is over would burden the next one: it is passed over, and told 0.
local out = {}
for i = 1, #ARGV, 5 do
  local key, sum, left = base .. ':limit:' .. ARGV[i], 0, 0
  local ends = tonumber(ARGV[i + 4])
  if ends == 0 or ends > now then
    redis.call('HSET', key, ARGV[i + 1], ARGV[i + 2])
    left = redis.call('PTTL', key)
    if left < 0 then
      left = ends == 0 and tonumber(ARGV[i + 3]) or ends - now
      redis.call('PEXPIRE', key, text(left))
    end
    for _, n in ipairs(redis.call('HVALS', key)) do sum = sum + tonumber(n) end
    ends = now + left
  end
  out[#out + 1], out[#out + 2], out[#out + 3] = sum, left, ends
end
return out
