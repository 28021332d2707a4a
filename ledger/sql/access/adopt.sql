-- Takes into an empty control history what the control tables hold already: a database from before
-- the history. Rows that are changed behind it later are not taken in again.
DO $adopt$
DECLARE
  kept record;
BEGIN
  IF EXISTS (SELECT FROM ledger.control_event) THEN
    RETURN;
  END IF;
  PERFORM set_config('TimeZone', 'UTC', true), set_config('bytea_output', 'hex', true);
  FOR kept IN
    SELECT c.relname AS name, string_to_array(encode(t.tgargs, 'escape'), E'\\000') AS args
    FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE t.tgname = 'record_control' AND c.relnamespace = 'ledger'::regnamespace
    ORDER BY c.relname
  LOOP
    EXECUTE format(
      $$SELECT ledger.append_control(
          coalesce(r.kept ->> 'project_id', '*'),
          %1$L || '.adopted',
          ledger.control_subject(%1$L, %2$L, r.kept),
          r.kept::text, coalesce(r.kept ->> 'actor', session_user), r.kept ->> 'reason')
        FROM (SELECT to_jsonb(x) - string_to_array(%3$L, ' ') AS kept FROM ledger.%4$I AS x) AS r
        $$, kept.args[1], kept.args[2], kept.args[3], kept.name);
  END LOOP;
END $adopt$;
