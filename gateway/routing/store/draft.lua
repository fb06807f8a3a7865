#!lua
-- Changes a draft of a route, or says why not: one step of its life at a time, so that nobody approves what has changed.
--
-- KEYS 1 draft:ID  2 drafts
-- ARGV 1 'put', 'approve' or 'close'   2 id   3 the edit that the caller saw (put: '0' makes a new draft; else '' any)
--      4 who   5 for how long the draft is kept from now on, in ms
--      put:   6 model   7 revision it is based on   8 document   9 reason   10 approvals needed
--      close: 6 state   7 why   8 revision that it became ('0' none)
-- Answers {'done', edit}   {'missing'}   {'edit', current edit}   {'state', state}   {'author', author}
--      {'damaged', key, what it holds}

local wanted = {'hash', 'zset'}
for i, key in ipairs(KEYS) do
  local holds = redis.call('TYPE', key).ok
  if holds ~= 'none' and holds ~= wanted[i] then return {'damaged', key, holds} end
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

if op == 'put' then
  -- 2. Only its author edits a draft, and an edit is a new draft to those who approve.
  if author and author ~= who then return {'author', author} end
  edit = string.format('%.0f', tonumber(edit or '0') + 1)
  redis.call('HSET', KEYS[1], 'id', id, 'edit', edit, 'state', 'open', 'author', who, 'model', ARGV[6], 'base', ARGV[7],
    'document', ARGV[8], 'reason', ARGV[9], 'needed', ARGV[10], 'approvals', '[]', 'at', at_us)
elseif op == 'approve' then
  -- 3. Nobody approves what is his own, and nobody counts twice.
  if author == who then return {'author', author} end
  local approvals = cjson.decode(redis.call('HGET', KEYS[1], 'approvals'))
  local counted = false
  for _, name in ipairs(approvals) do counted = counted or name == who end
  if not counted then
    approvals[#approvals + 1] = who
    redis.call('HSET', KEYS[1], 'approvals', cjson.encode(approvals))
  end
else
  redis.call('HSET', KEYS[1], 'state', ARGV[6], 'decided_by', who, 'why', ARGV[7], 'revision', ARGV[8])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_ms))
redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms + tonumber(ARGV[5])), id)
return {'done', edit}
