-- Refuses a text that is not a checkpoint of this database's feed (ledger/reading/feed.py), or that
-- lies in the future. Returns true, so that a caller can assign it. Internal to queue_deliveries.
CREATE OR REPLACE FUNCTION ledger.check_checkpoint(p_checkpoint text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  moment CONSTANT text := '[0-9]{1,19}:[0-9]{1,19}:[0-9,]*@[0-9]{1,19}(?:@[0-9a-f]{16})?';
  parts CONSTANT text[] := regexp_match(p_checkpoint,
    concat('^([0-9]{1,9})/(', moment, ')/(', moment, ')?/([0-9]{1,18})$'));
BEGIN
  IF parts IS NULL OR greatest(split_part(parts[2], '@', 2)::numeric,
      nullif(split_part(parts[3], '@', 2), '')::numeric, parts[4]::numeric)
    > (SELECT newest.last_value FROM ledger.event_position AS newest) THEN
    RAISE EXCEPTION 'the checkpoint is not from this feed' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.check_moment(parts[1]::int, parts[2]);
  IF parts[3] IS NOT NULL THEN
    PERFORM ledger.check_moment(parts[1]::int, parts[3]);
  END IF;
  RETURN true;
END $$;
