-- Hashes one event of the control history and the hash of the one before it. The Python twin is
-- ledger/proof/control.py; docs/reference/encoding.md.
CREATE OR REPLACE FUNCTION ledger.control_hash(
  previous bytea, number bigint, recorded_at timestamptz, project_id text, credential text,
  type text, subject text, facts text, actor text, reason text
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT sha256(E'\\x00'::bytea || convert_to(concat(
    E'runfold/control/v1\nprevious:', encode(previous, 'hex'), E'\n',
    'number:' || number || E'\n',
    'recorded_at:' || encode(timestamptz_send(recorded_at), 'hex') || E'\n',
    'project_id:' || length(project_id) || ':' || project_id || E'\n',
    'credential:' || length(credential) || ':' || credential || E'\n',
    'type:' || length(type) || ':' || type || E'\n',
    'subject:' || length(subject) || ':' || subject || E'\n',
    'facts:' || length(facts) || ':' || facts || E'\n',
    'actor:' || length(actor) || ':' || actor || E'\n',
    'reason:' || length(reason) || ':' || reason || E'\n'
  ), 'UTF8'))
$$;
