-- Bounds how long this transaction waits for each lock.
-- $1 text: milliseconds.
-- Locks: none.
SELECT set_config('lock_timeout', $1, true)
