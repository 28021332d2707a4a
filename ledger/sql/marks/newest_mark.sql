-- Returns the newest low-water mark of a kind, or none (ledger/sql/marks/move_low_water.sql).
-- PostgreSQL inlines the body. Internal to the operations. Locks: none.
CREATE OR REPLACE FUNCTION ledger.newest_mark(p_project text, p_kind text)
RETURNS SETOF ledger.low_water
LANGUAGE sql STABLE
AS $$
  SELECT mark.* FROM ledger.low_water AS mark
  WHERE mark.project_id = p_project AND mark.kind = p_kind
  ORDER BY mark.number DESC LIMIT 1
$$;
