#!lua flags=allow-oom
-- Replaces one partition's control state if it is still the one that the change was made from.
-- A store without memory left must still take a stop, hence the flag.
-- KEYS: control head, control state, control history
-- ARGV: expected head, head after, state after, epoch after, history record
local head = redis.call('GET', KEYS[1]) or '0:'
if head ~= ARGV[1] then
  return {'moved', head, redis.call('GET', KEYS[2]) or ''}
end
redis.call('XADD', KEYS[3], ARGV[4] .. '-0', 'r', ARGV[5])
redis.call('SET', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[2])
return {'ok'}
