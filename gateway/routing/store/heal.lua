#!lua
-- Heals a store that is behind the workers or damaged: 'restore' writes their routes back, 'accept' declares it right.
--
-- KEYS 1 epoch  2 rev  3 routes  4 log  5 accepted  6 acks  7 workers  8 drafts  9 audit  10 chain  11 rollouts
--      12 rollouts:damaged  13 judge  14 bandits  15 aliases
-- ARGV 1 'restore' or 'accept'   2 epoch that the caller saw, byte for byte ('' none)   3 revision, in the same way
--      4 epoch to hold from now on   5 revision to hold from now on   6 actor   7 reason   8 source
--      9 prefix of the history keys   10 prefix of the workers' keys
--      11 'replace' (the routes that follow are all there are) or 'keep' (the others stay)
--      12 entries kept in the audit trail   13 what was wrong
--      14 prefix of the drafts' keys   15 prefix of the counts' keys
--      16 number of models whose routes are none and are served by nobody   17... their names
--      ... model, route, its revision (restore only)
-- Answers {'done', revision, epoch, committed_at_us} or {'epoch', current epoch} (somebody was faster).

local time = redis.call('TIME')
local at_us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local wanted = {'string', 'string', 'hash', 'stream', 'string', 'stream', 'zset', 'zset', 'stream', 'hash', 'hash',
  'hash', 'string', 'hash', 'hash'}
local function alien(key, kind)
  local holds = redis.call('TYPE', key).ok
  return holds ~= 'none' and holds ~= kind
end
local function held(i)
  return not alien(KEYS[i], 'string') and redis.call('GET', KEYS[i]) or ''
end
if held(1) ~= ARGV[2] or held(2) ~= ARGV[3] then return {'epoch', held(1)} end

-- 1. What was never ours, and a log whose ids may be ahead, is moved aside, not deleted.
local function aside(key)
  redis.call('RENAME', key, key .. ':alien:' .. at_us)
end
for i, key in ipairs(KEYS) do
  if alien(key, wanted[i]) then aside(key) end
end
if chain_damage(KEYS[9], KEYS[10]) then
  for _, key in ipairs({KEYS[9], KEYS[10]}) do
    if redis.call('EXISTS', key) == 1 then aside(key) end
  end
end
if redis.call('EXISTS', KEYS[9]) == 0 and redis.call('EXISTS', KEYS[10]) == 1 then
  local newest = redis.call('HMGET', KEYS[10], 'sequence', 'hash')
  redis.call('HSET', KEYS[10], 'trimmed_sequence', newest[1], 'trimmed_hash', newest[2])
end
local recorded = chain_append(KEYS[9], KEYS[10], ARGV[12], {'op', ARGV[1], 'model', '', 'revision', ARGV[5], 'prev', '0',
  'restored', '0', 'document', '', 'actor', ARGV[6], 'reason', ARGV[7], 'source', ARGV[8], 'at', at_us, 'detail', ARGV[13]})
redis.call('HSET', KEYS[10], 'healed', recorded)
if redis.call('EXISTS', KEYS[4]) == 1 then
  local ahead = ARGV[11] == 'replace'
  local about = redis.call('XINFO', 'STREAM', KEYS[4])
  for j = 1, #about, 2 do
    if about[j] == 'last-generated-id' and tonumber(string.match(about[j + 1], '^%d+')) >= tonumber(ARGV[5]) then
      ahead = true
    end
  end
  if ahead then aside(KEYS[4]) end
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do
  if alien(ARGV[10] .. name, 'hash') then aside(ARGV[10] .. name) end
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[8], 0, -1)) do
  if alien(ARGV[14] .. name, 'hash') then aside(ARGV[14] .. name) end
end

local routes = 17 + tonumber(ARGV[16])
for i = 17, routes - 1 do
  local garbage = redis.call('HGET', KEYS[3], ARGV[i])
  if garbage then
    redis.call('HSET', KEYS[3] .. ':alien:' .. at_us, ARGV[i], garbage)
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
end

-- 2. The routes, each with the beginning of a history where it has none.
if ARGV[1] == 'restore' then
  if ARGV[11] == 'replace' then redis.call('DEL', KEYS[3]) end
  for i = routes, #ARGV, 3 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
for _, model in ipairs(redis.call('HKEYS', KEYS[3])) do
  if alien(ARGV[9] .. model, 'stream') then aside(ARGV[9] .. model) end
  local number = string.match(redis.call('HGET', KEYS[3], model), '^{"revision":(%d+),')
  if number and alien(ARGV[15] .. number, 'hash') then aside(ARGV[15] .. number) end
end
for i = routes, #ARGV, 3 do
  local history = ARGV[9] .. ARGV[i]
  if redis.call('EXISTS', history) == 0 then
    -- Not an 'apply': nobody knows what people had done to its rollout, so the judge holds it.
    redis.call('XADD', history, ARGV[i + 2] .. '-0', 'model', ARGV[i], 'op', ARGV[1], 'route', ARGV[i + 1], 'prev', '0',
      'digest', '', 'actor', ARGV[6], 'reason', ARGV[7], 'source', ARGV[8], 'at', at_us, 'restored', '0')
  end
end

-- 3. The identity, and one entry by which every worker reads all of it again.
if ARGV[1] == 'accept' then redis.call('SET', KEYS[5], ARGV[4]) end
redis.call('SET', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[5])
redis.call('XADD', KEYS[4], ARGV[5] .. '-0', 'model', '', 'op', ARGV[1], 'route', '', 'prev', '0', 'digest', '',
  'actor', ARGV[6], 'reason', ARGV[7], 'source', ARGV[8], 'at', at_us, 'restored', '0')
return {'done', ARGV[5], ARGV[4], at_us}
