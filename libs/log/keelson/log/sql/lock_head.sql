-- Holds all appends back, to the end of the transaction; gives up after a while of waiting for one that hangs.
-- Locks: the head's row.
SET LOCAL lock_timeout = '5s';
SELECT FROM log.head FOR UPDATE;
