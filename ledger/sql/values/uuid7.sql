-- Run ids are UUIDv7 of the database's clock: submission order is id order. The server's own
-- function where it has one (18).
DO $$
BEGIN
  IF to_regprocedure('pg_catalog.uuidv7()') IS NOT NULL THEN
    CREATE OR REPLACE FUNCTION ledger.uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
      AS 'SELECT uuidv7()';
  ELSE
    -- 48 bits of milliseconds, version 7, 12 bits of the millisecond's fraction, variant, 62
    -- random bits (RFC 9562, method 3).
    CREATE OR REPLACE FUNCTION ledger.uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
      AS 'SELECT encode(
            substr(int8send(moment.us / 1000), 3, 6)
            || substr(int4send((7 << 12) | ((moment.us % 1000) * 4096 / 1000)::int), 3, 2)
            || substr(uuid_send(gen_random_uuid()), 9, 8), ''hex'')::uuid
          FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us
            OFFSET 0) AS moment';
  END IF;
END $$;
