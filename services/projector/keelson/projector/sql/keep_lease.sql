-- Renews one lease if it is still the holder's: the first statement of every transaction of a rebuild, and its fence,
-- for whoever takes the lease over waits for that transaction.
-- $1 text: the name; $2 text: the holder; $3 double precision: for how many seconds from now, by this clock.
-- Locks: the lease's row, until the transaction ends.
UPDATE ops.leases
SET expires_at = clock_timestamp() + make_interval(secs => $3)
WHERE name = $1 AND holder = $2
