-- Shows that writing works. Gives 1 when what is held was completed on this
-- very run of the server, else 0.
redis.call('SET', base .. ':probe', text(now))
return redis.call('HGET', base .. ':marker', 'run') == run() and 1 or 0
