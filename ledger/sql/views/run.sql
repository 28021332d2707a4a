-- A run as people see it: its state and the content that state points to. A short text without
-- escapes is read by `->`, which is fast; any other may be one that cannot be read.
CREATE OR REPLACE VIEW ledger.run WITH (security_invoker = true) AS
SELECT run.*,
  CASE WHEN octet_length(first.body::text) < 10000 AND strpos(first.body::text, E'\\u') = 0
    THEN (first.body -> 'input')::text ELSE ledger.content_part(first.body, 'input') END AS input,
  CASE WHEN octet_length(outcome.body::text) < 10000 AND strpos(outcome.body::text, E'\\u') = 0
    THEN (outcome.body -> 'output')::text
    ELSE ledger.content_part(outcome.body, 'output') END AS output,
  CASE WHEN octet_length(outcome.body::text) < 10000 AND strpos(outcome.body::text, E'\\u') = 0
    THEN (outcome.body -> 'error_detail')::text
    ELSE ledger.content_part(outcome.body, 'error_detail') END AS error_detail
FROM ledger.run_state AS run
LEFT JOIN ledger.payload AS first
  ON first.project_id = run.project_id AND first.run_id = run.run_id AND first.version = 1
LEFT JOIN ledger.payload AS outcome
  ON outcome.project_id = run.project_id AND outcome.run_id = run.run_id
    AND outcome.version = run.outcome_version;
