-- Lets a projection that has stopped try again.
-- $1 text: the projection; $2 bigint: the position of the event that it must have stopped at, null for any.
-- Locks: the projection's row, until the transaction ends.
UPDATE ops.checkpoints
SET state = 'running', error_position = NULL, error_type = NULL, error_message = NULL, updated_at = clock_timestamp()
WHERE projection = $1 AND state <> 'running' AND ($2::bigint IS NULL OR error_position = $2)
RETURNING position
