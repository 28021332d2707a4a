-- Returns the first instant, in UTC, of the month in which a UUIDv7 was made.
CREATE OR REPLACE FUNCTION ledger.uuid7_month(p_id uuid) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT date_trunc('month', to_timestamp(('x' || substr(translate(p_id::text, '-', ''), 1, 12)
  )::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC') $$;
