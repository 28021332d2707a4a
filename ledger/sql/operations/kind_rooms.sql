-- Says which kinds a claim must pass over, the paused and the full ones, and of each limited
-- kind how many runs there is room for. Internal to ledger.claim. Locks: the rows of limited
-- kinds in kind_state, until the claim has committed, so that the next claim counts what this
-- one took.
CREATE OR REPLACE FUNCTION ledger.kind_rooms(p_project text, p_kinds text[], OUT barred text[],
  OUT limited text[], OUT rooms int[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  kind_now record;
  room int;
BEGIN
  barred := '{}';
  limited := '{}';
  rooms := '{}';
  FOR kind_now IN
    SELECT d.kind, d.paused FROM ledger.kind_state AS d
    WHERE d.project_id = p_project AND (d.paused OR d.max_running IS NOT NULL)
      AND (p_kinds IS NULL OR d.kind = ANY (p_kinds))
    ORDER BY d.project_id, d.kind
  LOOP
    IF kind_now.paused THEN
      barred := barred || kind_now.kind;
      CONTINUE;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'a limited kind is claimed in a read committed transaction only: '
        'another snapshot miscounts'
        USING ERRCODE = '25001';
    END IF;
    -- The row as it is once it is locked; the count after it has a snapshot of its own.
    SELECT d.max_running INTO room FROM ledger.kind_state AS d
    WHERE d.project_id = p_project AND d.kind = kind_now.kind AND NOT d.paused FOR UPDATE;
    IF NOT FOUND THEN
      barred := barred || kind_now.kind;
    ELSIF room IS NOT NULL THEN
      SELECT room - count(*) INTO room FROM (
        SELECT FROM ledger.run_state AS s
        WHERE s.project_id = p_project AND s.kind = kind_now.kind AND s.token IS NOT NULL LIMIT room
      ) AS held;
      IF room > 0 THEN
        limited := limited || kind_now.kind;
        rooms := rooms || room;
      ELSE
        barred := barred || kind_now.kind;
      END IF;
    END IF;
  END LOOP;
END $$;
