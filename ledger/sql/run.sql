-- A run as people see it: its state and the content that state points to.
CREATE OR REPLACE VIEW ledger.run WITH (security_invoker = true) AS
SELECT s.*,
  ledger.content(s.project_id, s.run_id, 1, 'input') AS input,
  ledger.content(s.project_id, s.run_id, s.outcome_version, 'output') AS output,
  ledger.content(s.project_id, s.run_id, s.outcome_version, 'error_detail') AS error_detail
FROM ledger.run_state AS s;
