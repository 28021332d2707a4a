-- Begins a new generation of the feed, after the events were restored into another cluster: from here on transaction ids are
-- this cluster's. Readers first finish the old generation, by the checkpoints they were restored with. Gives the generation.
-- Locks: `event` against writers, and so waits for those at work; no event of the old generation is in progress afterwards.
CREATE OR REPLACE FUNCTION ledger.feed_rebase() RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  g ledger.feed_generation;
  high bigint;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the feed cannot be rebased on a standby' USING ERRCODE = 'RF411';
  END IF;
  LOCK TABLE ledger.event IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO g FROM ledger.feed_generation AS f WHERE f.end_position IS NULL FOR UPDATE;
  SELECT s.last_value INTO high FROM ledger.event_position AS s;
  UPDATE ledger.feed_generation AS f SET end_position = high WHERE f.generation = g.generation;
  INSERT INTO ledger.feed_generation (generation, start, system_identifier)
  SELECT g.generation + 1, pg_current_snapshot()::text || '@' || high, c.system_identifier FROM pg_control_system() AS c;
  RETURN g.generation + 1;
END $$;
