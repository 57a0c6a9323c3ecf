-- Deletes some of the oldest answers that were kept under idempotency keys; the function says the rest.
-- $1 timestamptz: before when; $2 integer: how many at most.
-- Locks: the deleted rows, for this statement.
SELECT log.prune_keys_v1($1, $2)
