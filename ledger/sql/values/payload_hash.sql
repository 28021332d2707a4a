-- Commits to a payload's exact text under its salt. docs/reference/encoding.md; the Python twin is
-- ledger/proof/encoding.py.
CREATE OR REPLACE FUNCTION ledger.payload_hash(salt bytea, body text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT sha256(E'runfold/payload/v1\\012'::bytea || salt || convert_to(body, 'UTF8')) $$;
