-- Begins a projection at position 0; does nothing if it has begun. Waits for another replica that is beginning it.
-- $1 text: the projection; $2 integer: the version of its code.
-- Locks: the new row, until the tables are created in the same transaction.
INSERT INTO ops.checkpoints (projection, version, position, state)
VALUES ($1, $2, 0, 'running')
ON CONFLICT (projection) DO NOTHING
