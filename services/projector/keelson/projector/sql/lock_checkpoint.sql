-- Gives a projection's position and keeps runners from moving it; no row if it has not begun.
-- $1 text: the projection.
-- Locks: the projection's row, until the transaction ends.
SELECT position FROM ops.checkpoints WHERE projection = $1 FOR UPDATE
