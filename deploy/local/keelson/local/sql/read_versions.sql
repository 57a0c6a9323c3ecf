-- Gives the version of each projection that was ever begun.
-- Parameters: none.
-- Locks: none that others wait for.
SELECT projection, version FROM ops.checkpoints ORDER BY projection
