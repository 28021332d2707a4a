-- A run as people see it: its state and the content that state points to.
CREATE OR REPLACE VIEW ledger.run WITH (security_invoker = true) AS
SELECT s.*, (i.body -> 'input')::text AS input, (o.body -> 'output')::text AS output,
  (o.body -> 'error_detail')::text AS error_detail
FROM ledger.run_state AS s
LEFT JOIN ledger.payload AS i ON i.project_id = s.project_id AND i.run_id = s.run_id AND i.version = 1
LEFT JOIN ledger.payload AS o ON o.project_id = s.project_id AND o.run_id = s.run_id AND o.version = s.outcome_version;
