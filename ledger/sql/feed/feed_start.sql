-- Begins the first generation of the feed, in the cluster where the ledger was made.
INSERT INTO ledger.feed_generation (generation, start, system_identifier)
SELECT 1, '1:1:@0', cluster.system_identifier FROM pg_control_system() AS cluster
WHERE NOT EXISTS (SELECT FROM ledger.feed_generation);
