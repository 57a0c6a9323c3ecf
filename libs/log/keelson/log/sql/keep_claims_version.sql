-- Says by which rules the claims were made.
-- $1 integer: the rules' number.
-- Locks: the one row, to the end of the transaction.
INSERT INTO log.claims_version (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = excluded.version
