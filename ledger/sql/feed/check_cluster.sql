-- Refuses to read the feed where transaction ids do not mean what the checkpoints say: on a
-- standby, whose snapshots do not list what is in progress, and in a cluster that the events
-- were restored into, until ledger.feed_rebase has begun a generation.
CREATE OR REPLACE FUNCTION ledger.check_cluster() RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  this ledger.feed_generation;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the feed cannot be read on a standby' USING ERRCODE = 'RF411';
  END IF;
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.end_position IS NULL;
  IF this.system_identifier <> (
    SELECT cluster.system_identifier FROM pg_control_system() AS cluster)
    OR EXISTS (
      -- Events of an earlier generation may keep higher ids. Those that their cluster still appends
      -- have the highest, so it is enough to look at a few.
      SELECT FROM (
        SELECT ahead.txid, ahead.position FROM ledger.event AS ahead
        WHERE ahead.txid >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY ahead.txid DESC, ahead.position DESC LIMIT 100
      ) AS newest
      WHERE newest.position > split_part(this.start, '@', 2)::bigint
        AND newest.txid IS DISTINCT FROM pg_current_xact_id_if_assigned()) THEN
    RAISE EXCEPTION 'the events were restored into another cluster' USING ERRCODE = 'RF410';
  END IF;
END $$;
