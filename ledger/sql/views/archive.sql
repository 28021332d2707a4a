-- How each month that was ever archived stands: its newest record. Detached: its events are in
-- the file, not in the database.
CREATE OR REPLACE VIEW ledger.archive WITH (security_invoker = true) AS
SELECT DISTINCT ON (a.month) a.month, split_part(a.type, '.', 2) AS state,
  a.type = 'archive.detached' AS detached, a.recorded_at, a.actor, a.reason, a.first, a.beyond,
  a.runs, a.events, a.payloads, a.generation, a.last_position, a.last_txid, a.size_bytes, a.sha256,
    a.file
FROM ledger.archive_event AS a
  WHERE a.type IN ('archive.exported', 'archive.detached', 'archive.attached')
ORDER BY a.month, a.number DESC;
