-- ARGV: the generation that a rebuild is to make.
redis.call('HSET', base .. ':marker', 'building:' .. ARGV[1], run())
return 1
