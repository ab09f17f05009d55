-- erase(log, tenants, groups, usage, deleted, suppressed, copy; tenant, tenant digest, ready prefix, leases prefix) -> records that the log held
--
-- From here on nothing is taken for the tenant, and no group has it to read. Claims on its events' names are removed after this.

local log, tenants, groups, usage, deleted, suppressed, copy = unpack(KEYS)
local tenant, tenant_digest, ready_prefix, leases_prefix = unpack(ARGV)

local held = redis.call('TYPE', log).ok == 'stream' and redis.call('XLEN', log) or 0
redis.call('SREM', tenants, tenant) -- first: a server whose memory is full refuses SADD only until a script has written something
redis.call('SADD', deleted, tenant_digest)
redis.call('UNLINK', log, usage, suppressed, copy)
for _, group in ipairs(redis.call('SMEMBERS', groups)) do
  redis.call('ZREM', ready_prefix .. group, tenant)
  redis.call('HDEL', leases_prefix .. group, tenant)
end
return held
