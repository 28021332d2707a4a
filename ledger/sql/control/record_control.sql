-- Records a change of a control table in the control history, with the row as the change left it:
-- in the list of the row's project, or in that of the database. The trigger names the noun for the
-- row, its key columns, and the columns that change without an order.
CREATE OR REPLACE FUNCTION ledger.record_control() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET bytea_output = 'hex'
AS $$
DECLARE
  noun CONSTANT text := TG_ARGV[0];
  moving CONSTANT text[] := string_to_array(TG_ARGV[2], ' ');
  before CONSTANT jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - moving END;
  after CONSTANT jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - moving END;
  known CONSTANT jsonb := coalesce(after, before);
BEGIN
  IF before IS DISTINCT FROM after THEN
    PERFORM ledger.append_control(
      coalesce(known ->> 'project_id', '*'),
      coalesce(known ->> 'type', noun || CASE
        WHEN after IS NULL OR known -> 'rights' = '[]' THEN '.removed'
        WHEN before IS NULL THEN '.added' ELSE '.changed' END),
      ledger.control_subject(noun, TG_ARGV[1], known),
      after::text,
      coalesce(known ->> 'actor', session_user),
      known ->> 'reason');
  END IF;
  RETURN NULL;
END $$;
