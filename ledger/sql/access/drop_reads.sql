-- Deletes records of reads of a project from before a time, at least 184 days ago: at most 10,000,
-- the oldest first, on record in the control history. Returns how many. For the owner of the
-- ledger, by hand or on a schedule: no role may call it.
CREATE OR REPLACE FUNCTION ledger.drop_reads(
  p_project text, p_actor text, p_before timestamptz, p_reason text DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
AS $$
DECLARE
  checked boolean;
  dropped int;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_before', p_before IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  IF p_before > clock_timestamp() - interval '184 days' THEN
    RAISE EXCEPTION 'records of reads are kept for 184 days, and % is later', p_before
      USING ERRCODE = '22023';
  END IF;
  -- By their place, the fastest way, and safe because these rows are never changed.
  DELETE FROM ledger.payload_read AS noted WHERE noted.ctid = ANY (ARRAY(
    SELECT past.ctid FROM ledger.payload_read AS past
    WHERE past.project_id = p_project AND past.read_at < p_before
    ORDER BY past.read_at LIMIT 10000));
  GET DIAGNOSTICS dropped = ROW_COUNT;
  IF dropped > 0 THEN
    PERFORM ledger.append_control(p_project, 'reads.dropped', 'reads:' || p_project,
      jsonb_build_object('before', p_before, 'count', dropped)::text, p_actor, p_reason);
  END IF;
  RETURN dropped;
END $$;
