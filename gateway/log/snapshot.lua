-- Keeps a snapshot unless a later one is kept; trims the log behind both the kept snapshot and the archive.
-- KEYS: snapshot, log
-- ARGV: archived up to seq, seq, hash, state hash, fold version, blob
local kept = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')
if tonumber(ARGV[2]) >= kept then
  redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'hash', ARGV[3], 'state_hash', ARGV[4],
    'fold_version', ARGV[5], 'blob', ARGV[6])
  kept = tonumber(ARGV[2])
end
local trimmed_upto = math.min(kept, tonumber(ARGV[1]))
if trimmed_upto > 0 then
  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%d-0', trimmed_upto + 1))
end
return 'OK'
