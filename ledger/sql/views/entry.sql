-- An event and the payload it commits to, if it has one that was not erased.
CREATE OR REPLACE VIEW ledger.entry WITH (security_invoker = true) AS
SELECT e.*, p.body
FROM ledger.event AS e
LEFT JOIN ledger.payload AS p ON p.project_id = e.project_id AND p.run_id = e.run_id
  AND p.version = e.version;
