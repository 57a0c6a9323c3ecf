-- Gives a projection's checkpoint; no row before its first start.
-- $1 text: the projection.
-- Locks: none that others wait for.
SELECT version, position, state, error_position
FROM ops.checkpoints
WHERE projection = $1
