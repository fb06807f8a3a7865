-- The audit trail: a chain of entries, each with the hash of the one before it. Goes in front of every script that changes
-- something, so that an entry and the change it tells of are one commit.
--
-- audit  stream  id `<sequence>-0`: the entries        chain  hash  what is needed to go on, and where the trail begins:
--   sequence, hash of the newest entry; trimmed_sequence, trimmed_hash of the newest that is no longer kept;
--   healed: the sequence of the newest heal, if there was any (heal.lua)
--
-- An entry's hash is SHA-256 over its fields as `name=length:value`, one a line (gateway/routing/store/audit_chain.py).

-- SHA-256 (FIPS 180-4): Redis offers SHA-1 only. 0.3 ms for an entry of usual length.
local ROUND = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
local START = {
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}
local function sha256(message)
  local band, bxor, ror, rshift, tobit = bit.band, bit.bxor, bit.ror, bit.rshift, bit.tobit
  local length = #message * 8
  message = message .. '\128' .. string.rep('\0', (55 - #message) % 64) .. string.char(0, 0, 0, 0,
    math.floor(length / 2 ^ 24) % 256, math.floor(length / 2 ^ 16) % 256, math.floor(length / 256) % 256, length % 256)
  local state, w = {unpack(START)}, {}
  for at = 1, #message, 64 do
    for i = 1, 16 do
      local a, b, c, d = string.byte(message, at + i * 4 - 4, at + i * 4 - 1)
      w[i] = tobit(a * 2 ^ 24 + b * 2 ^ 16 + c * 256 + d)
    end
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      w[i] = tobit(w[i - 16] + bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
        + w[i - 7] + bxor(ror(y, 17), ror(y, 19), rshift(y, 10)))
    end
    local a, b, c, d, e, f, g, h = unpack(state)
    for i = 1, 64 do
      -- Sums of a few words are exact as numbers: one reduction to 32 bits at the end is enough.
      local t = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(g, band(e, bxor(f, g))) + ROUND[i] + w[i]
      local u = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, bxor(b, c)), band(b, c))
      a, b, c, d, e, f, g, h = tobit(t + u), a, b, c, tobit(d + t), e, f, g
    end
    for i, word in ipairs({a, b, c, d, e, f, g, h}) do state[i] = tobit(state[i] + word) end
  end
  for i, word in ipairs(state) do state[i] = bit.tohex(word) end
  return table.concat(state)
end

-- Why nothing can be recorded, as {'damaged', key, what it holds}, or nil.
local function chain_damage(audit, chain)
  for key, kind in pairs({[audit] = 'stream', [chain] = 'hash'}) do
    local holds = redis.call('TYPE', key).ok
    if holds ~= 'none' and holds ~= kind then return {'damaged', key, holds} end
  end
  local sequence = redis.call('HGET', chain, 'sequence')
  if sequence and (not string.match(sequence, '^%d+$') or #sequence > 15) then return {'damaged', chain, 'no number'} end
  if redis.call('EXISTS', audit) == 0 then return nil end
  if not sequence then return {'damaged', chain, 'nothing'} end
  local about = redis.call('XINFO', 'STREAM', audit)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' and tonumber(string.match(about[i + 1], '^%d+')) > tonumber(sequence) then
      return {'damaged', audit, 'an entry that is not of the chain'}
    end
  end
  return nil
end

-- Records an entry, before what it tells of takes effect: where this fails, nothing has been changed.
local function chain_append(audit, chain, kept, entry)
  local held = redis.call('HMGET', chain, 'sequence', 'hash')
  local sequence = string.format('%.0f', tonumber(held[1] or '0') + 1)
  local fields = {'sequence', sequence, unpack(entry)}
  fields[#fields + 1] = 'before'
  fields[#fields + 1] = held[2] or ''
  local lines = {}
  for i = 1, #fields, 2 do lines[#lines + 1] = fields[i] .. '=' .. #fields[i + 1] .. ':' .. fields[i + 1] end
  local hash = sha256(table.concat(lines, '\n'))
  fields[#fields + 1] = 'hash'
  fields[#fields + 1] = hash
  redis.call('XADD', audit, sequence .. '-0', unpack(fields))
  redis.call('HSET', chain, 'sequence', sequence, 'hash', hash)
  local over = redis.call('XLEN', audit) - tonumber(kept)
  if over >= 100 then
    local oldest = redis.call('XRANGE', audit, '-', '+', 'COUNT', over)
    local last = oldest[#oldest]
    local trimmed = string.match(last[1], '^%d+')
    for i = 1, #last[2], 2 do
      if last[2][i] == 'hash' then
        redis.call('HSET', chain, 'trimmed_sequence', trimmed, 'trimmed_hash', last[2][i + 1])
      end
    end
    redis.call('XTRIM', audit, 'MINID', string.format('%.0f', tonumber(trimmed) + 1))
  end
  return sequence
end
