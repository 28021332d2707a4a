-- Raises unless the credential has one of the rights in a project and may speak for each of the
-- actors. The first thing that each function asks; internal to the owner's functions. Without any
-- right in the project the answer is RF404, the same for a project that does not exist; else RF403.
CREATE OR REPLACE FUNCTION ledger.check_access(p_project text, p_rights text[],
  p_actors text[] DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
  IF NOT ledger.is_owner() THEN
    -- What nearly always holds, in one query; what does not is looked at closely.
    IF NOT EXISTS (
      SELECT FROM ledger.access_grant AS g
      WHERE g.credential = ledger.credential() AND g.project_id IN (p_project, '*')
        AND p_rights && g.rights AND (g.until IS NULL OR g.until > clock_timestamp())
        AND (p_actors IS NULL OR '*' = ANY (g.actors) OR p_actors <@ g.actors OR NOT EXISTS (
          SELECT FROM unnest(p_actors) AS asked
          WHERE asked IS NOT NULL AND NOT EXISTS (
            SELECT FROM unnest(g.actors) AS known
            WHERE asked = known OR right(known, 1) = '*'
              AND starts_with(asked, left(known, length(known) - 1)))))) THEN
      PERFORM ledger.check_grants(p_project, p_rights, p_actors);
    END IF;
  END IF;
  RETURN true;
END $$;
