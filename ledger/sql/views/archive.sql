-- How each month that was ever archived stands: its newest record. Detached: its events are in
-- the file, not in the database.
CREATE OR REPLACE VIEW ledger.archive WITH (security_invoker = true) AS
SELECT DISTINCT ON (record.month) record.month, split_part(record.type, '.', 2) AS state,
  record.type = 'archive.detached' AS detached, record.recorded_at, record.actor, record.reason,
  record.first, record.beyond, record.runs, record.events, record.payloads, record.generation,
  record.last_position, record.last_txid, record.size_bytes, record.sha256, record.file
FROM ledger.archive_event AS record
WHERE record.type IN ('archive.exported', 'archive.detached', 'archive.attached')
ORDER BY record.month, record.number DESC;
