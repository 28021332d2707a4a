-- Counts how many lapsed leases of a run were not charged as attempts. Why this is a function of
-- its own: see ledger.nothing_begun. Internal to ledger.reap. Locks: none.
CREATE OR REPLACE FUNCTION ledger.uncharged_leases(p_project text, p_run uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
  RETURN (SELECT count(*) FROM ledger.event AS expired
    WHERE expired.project_id = p_project AND expired.run_id = p_run
      AND expired.type = 'lease.expired' AND expired.attempt IS NOT NULL);
END $$;
