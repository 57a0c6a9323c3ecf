-- Moves a checkpoint if it is where the caller left it, in the epoch that the page was read in: a compare-and-set. No row
-- changed: another runner was there, or the page's events may be none of this lineage of the log.
-- $1 text: the projection; $2 integer: its version; $3 bigint: the position it must have; $4 bigint: the new one;
-- $5 double precision: events per second, smoothed; $6 text: the epoch.
-- Locks: the projection's row, first of all in a page's transaction, until it ends.
UPDATE ops.checkpoints
SET position = $4, rate = $5, state = 'running', error_position = NULL, error_type = NULL, error_message = NULL,
    updated_at = clock_timestamp()
WHERE projection = $1 AND version = $2 AND position = $3
    AND (SELECT h.epoch FROM log.head AS h) = $6
