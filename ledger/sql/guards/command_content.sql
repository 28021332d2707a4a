-- What makes two commands with one idempotency key the same command. Compared, never verified by
-- others: not an encoding.
CREATE OR REPLACE FUNCTION ledger.command_content(
  run_id uuid, what text, park boolean, name text, error_code text, body text, cost numeric,
  steps int, output bytea,
  wait interval, wait_outcome text
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT sha256(convert_to(jsonb_build_array(run_id, what, coalesce(park, false), name, error_code,
    body, cost::numeric(18, 6), steps,
    encode(output, 'hex'), extract(epoch FROM wait), wait_outcome)::text, 'UTF8'))
$$;
