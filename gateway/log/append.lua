-- Appends records to one account's log if log, control and time still allow it. No business rule.
-- KEYS: head, log, control head, control state, accounts of the partition, snapshot
-- ARGV: expected head, head after, expected control head ("" for facts), decided at (us), greatest age (us),
--       tail records at most, account, channel, wake-up, records...
local FIRST = 10
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local head = redis.call('GET', KEYS[1]) or '0:'
local control = redis.call('GET', KEYS[3]) or '0:'
local seq = tonumber(string.match(ARGV[1], '^%d+'))

if head ~= ARGV[1] then
  local tail = redis.call('XRANGE', KEYS[2], string.format('%d-0', seq + 1), '+', 'COUNT', ARGV[6])
  return {'conflict', now_us, head, control, tail, redis.call('HGET', KEYS[6], 'seq') or '0'}
end
if ARGV[3] ~= '' and control ~= ARGV[3] then
  return {'control', now_us, control, redis.call('GET', KEYS[4]) or ''}
end
if ARGV[3] ~= '' and math.abs(now_us - ARGV[4]) > tonumber(ARGV[5]) then
  return {'aged', now_us}
end

for i = FIRST, #ARGV do
  redis.call('XADD', KEYS[2], string.format('%d-0', seq + 1 + i - FIRST), 'r', ARGV[i])
end
if #ARGV >= FIRST then
  redis.call('SET', KEYS[1], ARGV[2])
  if seq == 0 then redis.call('SADD', KEYS[5], ARGV[7]) end
  redis.call('PUBLISH', ARGV[8], ARGV[9])
end
return {'ok', now_us}
