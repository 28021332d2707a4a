-- Gives one field of an event's payload as JSON text; null where there is none or it was erased.
CREATE OR REPLACE FUNCTION ledger.content(p_project text, p_run uuid, p_version int, p_field text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT (p.body -> p_field)::text FROM ledger.payload AS p
  WHERE p.project_id = p_project AND p.run_id = p_run AND p.version = p_version
$$;
