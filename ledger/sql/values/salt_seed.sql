-- 32 random bytes, from which the salts of one call follow. Kept nowhere, so that no salt can be
-- computed from another.
CREATE OR REPLACE FUNCTION ledger.salt_seed() RETURNS bytea
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
  SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
$$;
