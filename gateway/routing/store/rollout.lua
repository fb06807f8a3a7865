#!lua
-- Writes the state of one model's rollout, if nobody wrote another one meanwhile.
--
-- KEYS 1 rollouts
-- ARGV 1 model   2 the sequence of the state that the caller saw (0: none)   3 the state, a JSON object
-- Answers {'done'}   {'conflict', sequence}   {'damaged', key, what it holds}

local holds = redis.call('TYPE', KEYS[1]).ok
if holds ~= 'none' and holds ~= 'hash' then return {'damaged', KEYS[1], holds} end
local held = redis.call('HGET', KEYS[1], ARGV[1])
local sequence = held and string.match(held, '^{"sequence":(%d+),') or '0'
if sequence ~= ARGV[2] then return {'conflict', sequence} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {'done'}
