-- Begins the control history of a database that is older than the history, with what the control
-- tables hold by then. A row that is changed later without a record is not taken in again.
DO $adopt$
DECLARE
  kept record;
BEGIN
  IF EXISTS (SELECT FROM ledger.control_event) THEN
    RETURN;
  END IF;
  PERFORM set_config('TimeZone', 'UTC', true), set_config('bytea_output', 'hex', true);
  FOR kept IN
    SELECT control_table.relname AS name,
      string_to_array(encode(recorder.tgargs, 'escape'), E'\\000') AS args
    FROM pg_trigger AS recorder
    JOIN pg_class AS control_table ON control_table.oid = recorder.tgrelid
    WHERE recorder.tgname = 'record_control' AND control_table.relnamespace = 'ledger'::regnamespace
    ORDER BY control_table.relname
  LOOP
    EXECUTE format(
      $$SELECT ledger.append_control(
          coalesce(adopted.kept ->> 'project_id', '*'),
          %1$L || '.adopted',
          ledger.control_subject(%1$L, %2$L, adopted.kept),
          adopted.kept::text, coalesce(adopted.kept ->> 'actor', session_user),
            adopted.kept ->> 'reason')
        FROM (SELECT to_jsonb(control_row) - string_to_array(%3$L, ' ') AS kept
          FROM ledger.%4$I AS control_row) AS adopted
        $$, kept.args[1], kept.args[2], kept.args[3], kept.name);
  END LOOP;
END $adopt$;
