-- Lets one migration run at a time, to the end of its transaction, and bounds its waits for tables.
-- Locks: advisory, of the transaction; 4919 is just a number of ours.
SET LOCAL lock_timeout = '5s';
SELECT pg_advisory_xact_lock(4919);
