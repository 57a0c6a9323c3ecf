-- Puts a projection where its rebuilt tables are, and lets it run.
-- $1 text: the projection; $2 integer: the version of the code that rebuilt it; $3 bigint: the position.
-- Locks: the projection's row, until the transaction ends.
UPDATE ops.checkpoints
SET version = $2, position = $3, state = 'running', error_position = NULL, error_type = NULL, error_message = NULL,
    updated_at = clock_timestamp()
WHERE projection = $1
