-- Says that a projection does not go on from where it is, and why; not if an operator has skipped the event meanwhile.
-- $1 text: the projection; $2 integer: its version; $3 bigint: the position it must have; $4 text: 'stopped' or
-- 'behind_schema'; $5 bigint: the event's position; $6 text: the event's type; $7 text: what went wrong;
-- $8 text: the epoch that the event was read in.
-- Locks: the projection's row, for this statement.
UPDATE ops.checkpoints
SET state = $4, error_position = $5, error_type = $6, error_message = $7, rate = 0, updated_at = clock_timestamp()
WHERE projection = $1 AND version = $2 AND position = $3
    AND (SELECT h.epoch FROM log.head AS h) = $8
    AND NOT EXISTS (SELECT FROM ops.skips AS s WHERE s.projection = $1 AND s.position = $5)
