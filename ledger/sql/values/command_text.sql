-- What makes two commands with one idempotency key the same command, as text. Kept is only its hash
-- under a salt of the key's own, which goes when the content is erased. Compared, never verified
-- by others: not an encoding.
CREATE OR REPLACE FUNCTION ledger.command_text(
  run_id uuid, what text, park boolean, name text, error_code text, body text, cost numeric,
  steps int, output bytea,
  wait interval, wait_outcome text
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT jsonb_build_array(run_id, what, coalesce(park, false), name, error_code,
    body, cost::numeric(18, 6), steps,
    encode(output, 'hex'), extract(epoch FROM wait), wait_outcome)::text
$$;
