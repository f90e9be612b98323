-- ARGV: the generation of a rebuild that has parked everything. Gives 1 when
-- nothing was lost since it began, else 0.
local marker = base .. ':marker'
if redis.call('HGET', marker, 'building:' .. ARGV[1]) ~= run() then return 0 end
redis.call('DEL', marker)
redis.call('HSET', marker, 'run', run(), 'generation', ARGV[1])
return 1
