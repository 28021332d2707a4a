-- Raises unless the project exists, and the credential has one of the rights in it and may speak
-- for each of the actors. Every function of the API calls it first. Without any right in the
-- project the error is RF404, the same as for a project that does not exist; else RF403. All
-- projects are `*`. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.check_access(p_project text, p_rights text[],
  p_actors text[] DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
  speaks_for text[];
  place text; -- a project with a grant of its own exists
BEGIN
  IF ledger.is_owner() THEN
    RETURN p_project = '*' OR ledger.check_project(p_project);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed'
    AND current_setting('transaction_read_only') = 'off' THEN
    PERFORM ledger.check_snapshot();
  END IF;
  -- Without sub-selects, which would cost every call even where they are not evaluated. Where there
  -- is a grant for the project and one for all projects, either may be found; if that one does not
  -- suffice, ledger.check_grants looks at all of them.
  SELECT granted.actors, granted.project_id INTO speaks_for, place
  FROM ledger.access_grant AS granted
  WHERE granted.credential = ledger.credential() AND granted.project_id IN (p_project, '*')
    AND p_rights && granted.rights AND (granted.until IS NULL OR granted.until > ledger.now());
  -- Names that are granted literally need no query.
  IF FOUND AND (p_actors IS NULL OR '*' = ANY (speaks_for)
    OR array_remove(p_actors, NULL) <@ speaks_for) THEN
    RETURN place = p_project OR ledger.check_project(p_project);
  END IF;
  IF NOT FOUND OR EXISTS (
    SELECT FROM unnest(p_actors) AS asked
    WHERE asked IS NOT NULL AND NOT EXISTS (
      SELECT FROM unnest(speaks_for) AS known
      WHERE asked = known OR right(known, 1) = '*'
        AND starts_with(asked, left(known, length(known) - 1)))) THEN
    PERFORM ledger.check_grants(p_project, p_rights, p_actors);
  END IF;
  RETURN place = p_project OR ledger.check_project(p_project);
END $$;
