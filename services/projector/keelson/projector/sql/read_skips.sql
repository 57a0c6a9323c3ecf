-- Gives the positions that a projection skips.
-- $1 text: the projection.
-- Locks: none that others wait for.
SELECT position FROM ops.skips WHERE projection = $1
