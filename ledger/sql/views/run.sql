-- A run as people see it: its state and the content that state points to. A short text without
-- escapes is read by `->`, which is fast; any other may be one that cannot be read.
CREATE OR REPLACE VIEW ledger.run WITH (security_invoker = true) AS
SELECT s.*,
  CASE WHEN octet_length(i.body::text) < 10000 AND strpos(i.body::text, E'\\u') = 0
    THEN (i.body -> 'input')::text ELSE ledger.content_part(i.body, 'input') END AS input,
  CASE WHEN octet_length(o.body::text) < 10000 AND strpos(o.body::text, E'\\u') = 0
    THEN (o.body -> 'output')::text ELSE ledger.content_part(o.body, 'output') END AS output,
  CASE WHEN octet_length(o.body::text) < 10000 AND strpos(o.body::text, E'\\u') = 0
    THEN (o.body -> 'error_detail')::text
    ELSE ledger.content_part(o.body, 'error_detail') END AS error_detail
FROM ledger.run_state AS s
LEFT JOIN ledger.payload AS i
  ON i.project_id = s.project_id AND i.run_id = s.run_id AND i.version = 1
LEFT JOIN ledger.payload AS o
  ON o.project_id = s.project_id AND o.run_id = s.run_id AND o.version = s.outcome_version;
