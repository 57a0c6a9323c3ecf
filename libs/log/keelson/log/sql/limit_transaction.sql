-- Bounds every transaction of this session, from PostgreSQL 17 on.
-- $1 text: milliseconds.
-- Locks: none.
SELECT set_config('transaction_timeout', $1, false)
