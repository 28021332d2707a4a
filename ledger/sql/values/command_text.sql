-- Returns, as text, what must be equal for two commands with one idempotency key to be the same
-- command. Only its hash is kept, under a salt of the key's own, which goes when the content is
-- erased. Others never verify it, so it is not part of the published encoding.
CREATE OR REPLACE FUNCTION ledger.command_text(
  run_id uuid, what text, park boolean, name text, error_code text, body text, cost numeric,
  steps int, output bytea, wait interval, wait_outcome text
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT jsonb_build_array(run_id, what, coalesce(park, false), name, error_code,
    body, cost::numeric(18, 6), steps,
    encode(output, 'hex'), extract(epoch FROM wait), wait_outcome)::text
$$;
