-- Hashes one event's facts and the hash of the event before it. docs/reference/encoding.md; the
-- Python twin is ledger/proof/encoding.py. Called by name with only the facts an event has: the
-- planner inlines the body and drops the lines of the others.
CREATE OR REPLACE FUNCTION ledger.event_hash(
  previous bytea, project_id text, run_id uuid, version int, recorded_at timestamptz, type text,
  actor text, schema_version int DEFAULT 1, state text DEFAULT NULL, name text DEFAULT NULL,
  kind text DEFAULT NULL, priority int DEFAULT NULL, max_attempts int DEFAULT NULL,
  deadline timestamptz DEFAULT NULL, tags text[] DEFAULT NULL, attempt int DEFAULT NULL,
  worker_id text DEFAULT NULL, token int DEFAULT NULL, lease_until timestamptz DEFAULT NULL,
  available_at timestamptz DEFAULT NULL, late_ms int DEFAULT NULL,
  wait_until timestamptz DEFAULT NULL, wait_outcome text DEFAULT NULL,
  cost_usd numeric DEFAULT NULL, step_count int DEFAULT NULL, error_code text DEFAULT NULL,
  output_sha256 bytea DEFAULT NULL, compensates int DEFAULT NULL, key text DEFAULT NULL,
  payload_hash bytea DEFAULT NULL, credential text DEFAULT NULL, role text DEFAULT NULL,
  other_person boolean DEFAULT NULL, shown_sha256 text DEFAULT NULL, request int DEFAULT NULL,
  meaning text DEFAULT NULL, based_on int DEFAULT NULL, approvals int DEFAULT NULL,
  approved int DEFAULT NULL
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT sha256(E'\\x00'::bytea || convert_to(concat(
    E'runfold/event/v1\nprevious:', encode(previous, 'hex'), E'\n',
    'project_id:' || length(project_id) || ':' || project_id || E'\n',
    'run_id:' || run_id || E'\n',
    'version:' || version || E'\n',
    'recorded_at:' || encode(timestamptz_send(recorded_at), 'hex') || E'\n',
    'type:' || length(type) || ':' || type || E'\n',
    'schema_version:' || schema_version || E'\n',
    'actor:' || length(actor) || ':' || actor || E'\n',
    'state:' || length(state) || ':' || state || E'\n',
    'name:' || length(name) || ':' || name || E'\n',
    'kind:' || length(kind) || ':' || kind || E'\n',
    'priority:' || priority || E'\n',
    'max_attempts:' || max_attempts || E'\n',
    'deadline:' || encode(timestamptz_send(deadline), 'hex') || E'\n',
    'tags:' || array_to_json(tags)::text || E'\n',
    'attempt:' || attempt || E'\n',
    'worker_id:' || length(worker_id) || ':' || worker_id || E'\n',
    'token:' || token || E'\n',
    'lease_until:' || encode(timestamptz_send(lease_until), 'hex') || E'\n',
    'available_at:' || encode(timestamptz_send(available_at), 'hex') || E'\n',
    'late_ms:' || late_ms || E'\n',
    'wait_until:' || encode(timestamptz_send(wait_until), 'hex') || E'\n',
    'wait_outcome:' || length(wait_outcome) || ':' || wait_outcome || E'\n',
    'cost_usd:' || cost_usd || E'\n',
    'step_count:' || step_count || E'\n',
    'error_code:' || length(error_code) || ':' || error_code || E'\n',
    'output_sha256:' || encode(output_sha256, 'hex') || E'\n',
    'compensates:' || compensates || E'\n',
    'key:' || length(key) || ':' || key || E'\n',
    'payload_hash:' || encode(payload_hash, 'hex') || E'\n',
    'credential:' || length(credential) || ':' || credential || E'\n',
    'role:' || length(role) || ':' || role || E'\n',
    'other_person:' || other_person || E'\n',
    'shown_sha256:' || length(shown_sha256) || ':' || shown_sha256 || E'\n',
    'request:' || request || E'\n',
    'meaning:' || length(meaning) || ':' || meaning || E'\n',
    'based_on:' || based_on || E'\n',
    'approvals:' || approvals || E'\n',
    'approved:' || approved || E'\n'
  ), 'UTF8'))
$$;
