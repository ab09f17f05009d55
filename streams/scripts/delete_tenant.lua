-- delete_tenant(log, tenants, groups, usage, deleted, suppressed, rewrite; tenant, tenant_digest, ready_prefix, leases_prefix)
--   -> how many records the server held
--
-- Remove a tenant, except its dedup keys, and remember its digest: from now on nothing is appended for it.

local log, tenants, groups, usage, deleted, suppressed, rewrite = unpack(KEYS)
local tenant, tenant_digest, ready_prefix, leases_prefix = unpack(ARGV)

local held = redis.call('TYPE', log).ok == 'stream' and redis.call('XLEN', log) or 0
redis.call('SREM', tenants, tenant) -- first: a server whose memory is full refuses SADD only until a script has written something
redis.call('SADD', deleted, tenant_digest)
redis.call('UNLINK', log, usage, suppressed, rewrite)
for _, group in ipairs(redis.call('SMEMBERS', groups)) do
  redis.call('ZREM', ready_prefix .. group, tenant)
  redis.call('HDEL', leases_prefix .. group, tenant)
end
return held
