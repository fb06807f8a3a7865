#!lua
-- Settles a store that is behind the workers: 'restore' writes their routes back, 'accept' declares the store right.
--
-- KEYS 1 epoch  2 rev  3 routes  4 log  5 accepted
-- ARGV 1 'restore' or 'accept'   2 epoch that the caller saw ('' none)   3 revision that the caller saw
--      4 epoch to hold from now on   5 revision to hold from now on   6 actor   7 reason   8 source
--      9 prefix of the history keys   10... model, route, its revision (restore only)
-- Answers {'done', revision, epoch, committed_at_us} or {'epoch', current epoch} (somebody was faster).

local time = redis.call('TIME')
local at_us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local wanted = {'string', 'string', 'hash', 'stream', 'string'}
local alien = {}
for i, key in ipairs(KEYS) do
  local holds = redis.call('TYPE', key).ok
  alien[i] = holds ~= 'none' and holds ~= wanted[i]
end
local function held(i) return not alien[i] and redis.call('GET', KEYS[i]) end
if (held(1) or '') ~= ARGV[2] or (held(2) or '0') ~= ARGV[3] then return {'epoch', held(1) or ''} end

-- What was never ours, and the log whose ids may be ahead, is moved aside, not deleted.
for i, key in ipairs(KEYS) do
  if alien[i] or (i == 4 and redis.call('EXISTS', key) == 1) then
    redis.call('RENAME', key, key .. ':alien:' .. at_us)
  end
end
if ARGV[1] == 'restore' then
  redis.call('DEL', KEYS[3])
  for i = 10, #ARGV, 3 do
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    local history = ARGV[9] .. ARGV[i]
    if redis.call('EXISTS', history) == 0 then
      redis.call('XADD', history, ARGV[i + 2] .. '-0', 'model', ARGV[i], 'op', 'apply', 'route', ARGV[i + 1], 'prev', '0',
        'digest', '', 'actor', ARGV[6], 'reason', ARGV[7], 'source', ARGV[8], 'at', at_us, 'restored', '0')
    end
  end
else
  redis.call('SET', KEYS[5], ARGV[4])
end
redis.call('SET', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[5])
redis.call('XADD', KEYS[4], ARGV[5] .. '-0', 'model', '', 'op', ARGV[1], 'route', '', 'prev', '0', 'digest', '',
  'actor', ARGV[6], 'reason', ARGV[7], 'source', ARGV[8], 'at', at_us, 'restored', '0')
return {'done', ARGV[5], ARGV[4], at_us}
