-- Lets a projection that has stopped try again; gives its position, or no row if it has not stopped.
-- $1 text: the projection; $2 bigint: the position of the poison event that it must have stopped at, null for whatever.
-- Locks: the projection's row, until the transaction ends.
UPDATE ops.checkpoints
SET state = 'running', error_position = NULL, error_type = NULL, error_message = NULL, updated_at = clock_timestamp()
WHERE projection = $1 AND state <> 'running' AND ($2::bigint IS NULL OR (state = 'stopped' AND error_position = $2))
RETURNING position
