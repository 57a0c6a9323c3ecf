-- Gives the version in which each projection's views stand.
-- Parameters: none.
-- Locks: none that others wait for.
SELECT projection, version FROM ops.checkpoints
