#!lua
-- Commits one change of one model's route, or says why not; nothing is written unless all of it can be.
--
-- KEYS 1 epoch  2 rev  3 routes  4 log  5 hist:MODEL  6 idem:KEY  7 audit  8 chain
-- ARGV 1 epoch that the caller saw ('' none)   2 epoch to create if there is none   3 model
--      4 revision of the model's route that the caller saw ('*' any, 0 none)   5 operation: delete, or another word
--      6 the route's JSON object without its opening brace, revision, previous revision and time; '' for delete
--      7 actor   8 reason   9 source   10 revision whose document is restored (0 none)
--      11 entries kept in the log   12 entries kept in the history   13 seconds an idempotency key is remembered
--      14 SHA-256 of what is given as 6, '' for delete   15 entries kept in the audit trail
--      16 what the entry carries besides, '' for nothing
-- Answers
--      {'done' | 'again', revision, previous revision, epoch, committed_at_us, restored revision, model, operation}
--      {'conflict', current revision}   {'epoch', current epoch}   {'damaged', key, what it holds}

local wanted = {'string', 'string', 'hash', 'stream', 'stream'}
for i, kind in ipairs(wanted) do
  local key = KEYS[i]
  local holds = redis.call('TYPE', key).ok
  if holds ~= 'none' and holds ~= kind then return {'damaged', key, holds} end
end

-- 1. The same key again is the same commit: a caller that lost the answer may ask again. What stands there and is no
--    answer is replaced by this one: no healing would find it.
local first = redis.call('TYPE', KEYS[6]).ok == 'string' and redis.call('GET', KEYS[6])
if first and string.match(first, '^%d+ %d+ %S+ %d+ %d+ %S+ %l+$') then
  local answer = {'again'}
  for word in string.gmatch(first, '%S+') do answer[#answer + 1] = word end
  return answer
end

-- 2. The store's identity. Half of it missing is damage, not a new store: counting again from 1 would go back in time.
local epoch, revision = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not epoch and (revision or redis.call('EXISTS', KEYS[3]) == 1) then return {'damaged', KEYS[1], 'nothing'} end
if epoch and not revision then return {'damaged', KEYS[2], 'nothing'} end
if (epoch or '') ~= ARGV[1] then return {'epoch', epoch or ''} end
if revision and (not string.match(revision, '^%d+$') or #revision > 15) then return {'damaged', KEYS[2], 'no number'} end

-- 3. Nobody changed this route since the caller read it. A value that is no route counts as none.
local current = redis.call('HGET', KEYS[3], ARGV[3])
local previous = tonumber(current and string.match(current, '^{"revision":(%d+),') or 0)
if ARGV[4] ~= '*' and tonumber(ARGV[4]) ~= previous then return {'conflict', previous} end

local damage = chain_damage(KEYS[7], KEYS[8])
if damage then return damage end

-- 4. An entry that somebody added by hand must not block the log: such a stream is moved aside, never deleted.
local next_revision = tonumber(revision or 0) + 1
local time = redis.call('TIME')
local at_us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
for i = 4, 5 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local about = redis.call('XINFO', 'STREAM', KEYS[i])
    for j = 1, #about, 2 do
      if about[j] == 'last-generated-id' and tonumber(string.match(about[j + 1], '^%d+')) >= next_revision then
        redis.call('RENAME', KEYS[i], KEYS[i] .. ':alien:' .. at_us)
      end
    end
  end
end

-- 5. The record comes first: where there can be none, nothing changes.
local number = string.format('%.0f', next_revision)
local before = string.format('%.0f', previous)
chain_append(KEYS[7], KEYS[8], ARGV[15], {'op', ARGV[5], 'model', ARGV[3], 'revision', number, 'prev', before,
  'restored', ARGV[10], 'document', ARGV[14], 'actor', ARGV[7], 'reason', ARGV[8], 'source', ARGV[9], 'at', at_us,
  'detail', ARGV[16]})

-- 6. All of it.
if not epoch then
  epoch = ARGV[2]
  redis.call('SET', KEYS[1], epoch)
end
redis.call('SET', KEYS[2], number)
local route = ''
if ARGV[5] == 'delete' then
  redis.call('HDEL', KEYS[3], ARGV[3])
else
  route = '{"revision":' .. number .. ',"previous_revision":' .. before .. ',"committed_at_us":' .. at_us .. ',' .. ARGV[6]
  redis.call('HSET', KEYS[3], ARGV[3], route)
end
local function add(key, ...)
  redis.call('XADD', key, 'MAXLEN', ...)
end
local entry = {number .. '-0', 'model', ARGV[3], 'op', ARGV[5], 'route', route, 'prev', before, 'digest', redis.sha1hex(route),
  'actor', ARGV[7], 'reason', ARGV[8], 'source', ARGV[9], 'at', at_us, 'restored', ARGV[10]}
add(KEYS[4], '~', ARGV[11], unpack(entry))
add(KEYS[5], '=', ARGV[12], unpack(entry))
local answer = {number, before, epoch, at_us, ARGV[10], ARGV[3], ARGV[5]}
redis.call('SET', KEYS[6], table.concat(answer, ' '), 'EX', ARGV[13])
return {'done', unpack(answer)}
