#!lua
-- Records what changes something outside the store, before it does.
--
-- KEYS 1 audit  2 chain  3 idem:KEY
-- ARGV 1 operation   2 model   3 actor   4 reason   5 source   6 detail   7 entries kept in the audit trail
--      8 seconds for which the same again is recorded once
-- Answers {'done' | 'again', sequence}   {'damaged', key, what it holds}

local damage = chain_damage(KEYS[1], KEYS[2])
if damage then return damage end
-- What stands there and is no sequence is replaced: no healing would find it.
local first = redis.call('TYPE', KEYS[3]).ok == 'string' and redis.call('GET', KEYS[3])
if first and #first <= 15 and string.match(first, '^%d+$') then return {'again', first} end
local time = redis.call('TIME')
local at_us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local sequence = chain_append(KEYS[1], KEYS[2], ARGV[7], {'op', ARGV[1], 'model', ARGV[2], 'revision', '0', 'prev', '0',
  'restored', '0', 'document', '', 'actor', ARGV[3], 'reason', ARGV[4], 'source', ARGV[5], 'at', at_us, 'detail', ARGV[6]})
redis.call('SET', KEYS[3], sequence, 'EX', ARGV[8])
return {'done', sequence}
