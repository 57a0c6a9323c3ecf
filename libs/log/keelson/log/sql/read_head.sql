-- Gives the head: the lineage, the last position, and when it was recorded.
-- Locks: none that others wait for.
SELECT epoch, position, recorded_at FROM log.head
