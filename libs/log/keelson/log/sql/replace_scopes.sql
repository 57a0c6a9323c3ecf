-- Sets what every claim scope holds, and raises every version: whatever was read before no longer confirms.
-- $1 text[]: the scopes of the log; $2 bigint[]: how many keys each holds; $3 bigint[]: how much. Others hold nothing.
-- Locks: every scope's row; the head's is held before.
WITH expected AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS e (scope, held, amount)
    UNION ALL
    SELECT s.scope, 0, 0 FROM log.claim_scopes AS s WHERE s.scope <> ALL ($1::text[])
)
INSERT INTO log.claim_scopes AS s (scope, held, amount, version)
SELECT scope, held, amount, 1 FROM expected
ON CONFLICT (scope) DO UPDATE
SET held = excluded.held, amount = excluded.amount, version = s.version + 1
