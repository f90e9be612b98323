local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Lua would write a large number with an exponent.
local function text(n) return string.format('%.0f', n) end
local function set(route, tenant) return base .. ':q:' .. route .. ':' .. tenant end
local function turn(route) return base .. ':turn:' .. route end
local function lease(route) return base .. ':lease:' .. route end

-- parts calls fn with the elements of a list, in parts that unpack can take.
local function parts(list, fn)
  for i = 1, #list, 1000 do
    fn(unpack(list, i, math.min(i + 999, #list)))
  end
end

-- touch gives tenants the places in their route's turns that their first
-- numbers ask for; served when they have just been served.
local function touch(route, tenants, served)
  local places, empty = {}, {}
  for _, tenant in ipairs(tenants) do
    local first = redis.call('ZRANGE', set(route, tenant), 0, 0, 'WITHSCORES')[2]
    if first then
      first = tonumber(first)
      local at = math.max(first, now)
      if not served then
        local was = tonumber(redis.call('ZSCORE', turn(route), tenant) or at)
        at = first >= was and first or math.min(was, at)
      end
      places[#places + 1], places[#places + 2] = text(at), tenant
    else
      empty[#empty + 1] = tenant
    end
  end
  parts(places, function(...) redis.call('ZADD', turn(route), ...) end)
  parts(empty, function(...) redis.call('ZREM', turn(route), ...) end)
end

-- drop takes numbers out for good and gives how many were there; their leases
-- are left to the caller.
local function drop(route, tenant, numbers)
  local gone = 0
  parts(numbers, function(...) gone = gone + redis.call('ZREM', set(route, tenant), ...) end)
  if gone > 0 then
    redis.call('HINCRBY', base .. ':depth', route, -gone)
  end
  return gone
end

-- free ends leases.
local function free(route, numbers)
  parts(numbers, function(...) redis.call('HDEL', lease(route), ...) end)
end

-- run names this run of the server: another one may have lost a part.
local function run() return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') end
