#!lua
-- Changes a draft of a route, or says why not: one step of its life at a time, so that nobody approves what has changed.
--
-- KEYS 1 draft:ID  2 drafts  3 audit  4 chain
-- ARGV 1 'put', 'approve' or 'close'   2 id   3 the edit that the caller saw (put: '0' makes a new draft; else '' any)
--      4 who   5 for how long the draft is kept from now on, in ms
--      6 reason   7 source   8 entries kept in the audit trail
--      put:   9 model   10 revision it is based on   11 document   12 its SHA-256   13 approvals needed
--      close: 9 state   10 revision that it became ('0' none)
-- Answers {'done', edit}   {'missing'}   {'edit', current edit}   {'state', state}   {'author', author}
--      {'damaged', key, what it holds}

local damage = chain_damage(KEYS[3], KEYS[4])
if damage then return damage end
for i, kind in ipairs({'hash', 'zset'}) do
  local key = KEYS[i]
  local holds = redis.call('TYPE', key).ok
  if holds ~= 'none' and holds ~= kind then return {'damaged', key, holds} end
end
local time = redis.call('TIME')
local now_ms = math.floor(tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000)
local at_us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local op, id, seen, who = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local edit = redis.call('HGET', KEYS[1], 'edit')

-- 1. A draft that is there is the one that the caller saw, and is not decided yet.
if edit then
  if seen ~= '' and seen ~= edit then return {'edit', edit} end
  local state = redis.call('HGET', KEYS[1], 'state')
  if state ~= 'open' then return {'state', state} end
elseif op ~= 'put' or seen ~= '0' then
  return {'missing'}
end
local author = redis.call('HGET', KEYS[1], 'author')
local function record(word, model, document, of_edit)
  chain_append(KEYS[3], KEYS[4], ARGV[8], {'op', 'draft.' .. word, 'model', model, 'revision', '0', 'prev', '0',
    'restored', '0', 'document', document, 'actor', who, 'reason', ARGV[6], 'source', ARGV[7], 'at', at_us,
    'detail', 'draft ' .. id .. ' edit ' .. of_edit})
end
local model = redis.call('HGET', KEYS[1], 'model') or ''

if op == 'put' then
  -- 2. Only its author edits a draft, and an edit is a new draft to those who approve.
  if author and author ~= who then return {'author', author} end
  edit = string.format('%.0f', tonumber(edit or '0') + 1)
  record('put', ARGV[9], ARGV[12], edit)
  redis.call('HSET', KEYS[1], 'id', id, 'edit', edit, 'state', 'open', 'author', who, 'model', ARGV[9], 'base', ARGV[10],
    'document', ARGV[11], 'reason', ARGV[6], 'needed', ARGV[13], 'approvals', '[]', 'at', at_us)
elseif op == 'approve' then
  -- 3. Nobody approves what is his own, and nobody counts twice.
  if author == who then return {'author', author} end
  local approvals = cjson.decode(redis.call('HGET', KEYS[1], 'approvals'))
  local counted = false
  for _, name in ipairs(approvals) do counted = counted or name == who end
  if not counted then
    record('approve', model, '', edit)
    approvals[#approvals + 1] = who
    redis.call('HSET', KEYS[1], 'approvals', cjson.encode(approvals))
  end
else
  record(ARGV[9], model, '', edit)
  redis.call('HSET', KEYS[1], 'state', ARGV[9], 'decided_by', who, 'why', ARGV[6], 'revision', ARGV[10])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_ms))
redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms + tonumber(ARGV[5])), id)
return {'done', edit}
