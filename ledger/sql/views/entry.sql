-- An event and the payload it commits to, if it has one that was not erased. OFFSET 0: each payload
-- is looked up by its key. Where runs are short, the planner would read all payloads of a long one
-- again for each of its events.
CREATE OR REPLACE VIEW ledger.entry WITH (security_invoker = true) AS
SELECT event.*, payload.body
FROM ledger.event
LEFT JOIN LATERAL (
  SELECT payload.body FROM ledger.payload WHERE payload.project_id = event.project_id
    AND payload.run_id = event.run_id AND payload.version = event.version OFFSET 0
) AS payload ON true;
