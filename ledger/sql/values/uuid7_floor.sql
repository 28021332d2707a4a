-- The smallest UUID whose leading 48 bits are this instant's milliseconds: a partition bound.
CREATE OR REPLACE FUNCTION ledger.uuid7_floor(p_utc timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT rpad(encode(substr(int8send((extract(epoch FROM p_utc) * 1000)::bigint), 3, 6), 'hex'),
  32, '0')::uuid $$;
