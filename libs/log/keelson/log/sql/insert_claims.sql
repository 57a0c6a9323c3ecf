-- Adds one claim of a rebuild.
-- $1 text: the scope; $2 text: the key; $3 text: the holder; $4 bigint: the amount.
-- Locks: the new row; the head's is held before.
INSERT INTO log.claims (scope, key, aggregate_id, amount) VALUES ($1, $2, $3, $4)
