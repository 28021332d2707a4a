-- An event and the payload it commits to, if it has one that was not erased.
CREATE OR REPLACE VIEW ledger.entry WITH (security_invoker = true) AS
SELECT event.*, payload.body
FROM ledger.event
LEFT JOIN ledger.payload ON payload.project_id = event.project_id AND payload.run_id = event.run_id
  AND payload.version = event.version;
