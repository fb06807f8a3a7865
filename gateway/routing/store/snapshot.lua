#!lua flags=no-writes
-- The whole routing state of one moment.
--
-- KEYS 1 epoch  2 rev  3 routes  4 accepted
-- ARGV 1 the largest value that is read, in bytes   2 'all', or 'digest' to leave the routes out
-- Answers {epoch, revision, accepted epoch, digest, model, route or nothing, its size, model, ...}
--      or {'damaged', key, what it holds}. The digest adds up one hash per route, so it knows no order.

local wanted = {'string', 'string', 'hash', 'string'}
for i, key in ipairs(KEYS) do
  local holds = redis.call('TYPE', key).ok
  if holds ~= 'none' and holds ~= wanted[i] then return {'damaged', key, holds} end
end
for _, i in ipairs({1, 2, 4}) do
  if redis.call('STRLEN', KEYS[i]) > 64 then return {'damaged', KEYS[i], 'a longer value'} end
end

local answer = {redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[4]) or '', ''}
local low, high, wrap = 0, 0, 2 ^ 48
for _, model in ipairs(redis.call('HKEYS', KEYS[3])) do
  local size = redis.call('HSTRLEN', KEYS[3], model)
  local route = false
  if size <= tonumber(ARGV[1]) then route = redis.call('HGET', KEYS[3], model) end
  local hash = redis.sha1hex(model .. '\0' .. (route or ('size ' .. size)))
  low = (low + tonumber(string.sub(hash, 1, 12), 16)) % wrap
  high = (high + tonumber(string.sub(hash, 13, 24), 16)) % wrap
  if ARGV[2] == 'all' then
    answer[#answer + 1] = model
    answer[#answer + 1] = route
    answer[#answer + 1] = size
  end
end
answer[4] = string.format('%.0f-%.0f', low, high)
return answer
