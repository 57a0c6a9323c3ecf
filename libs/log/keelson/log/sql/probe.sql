-- Asks for a sign of life: the log's epoch.
-- No parameters. Locks: none that others wait for.
SELECT epoch FROM log.head
