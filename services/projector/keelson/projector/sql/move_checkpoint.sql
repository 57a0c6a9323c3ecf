-- Moves a checkpoint if it is where the caller left it: a compare-and-set. No row changed: another runner was there.
-- $1 text: the projection; $2 integer: its version; $3 bigint: the position it must have; $4 bigint: the new one;
-- $5 double precision: events per second, smoothed.
-- Locks: the projection's row, first of all in a page's transaction, until it ends.
UPDATE ops.checkpoints
SET position = $4, rate = $5, state = 'running', error_position = NULL, error_type = NULL, error_message = NULL,
    updated_at = clock_timestamp()
WHERE projection = $1 AND version = $2 AND position = $3
