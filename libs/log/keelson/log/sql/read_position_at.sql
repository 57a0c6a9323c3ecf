-- Gives the last position recorded at or before a time, 0 if there is none.
-- $1 timestamptz: the time.
-- Locks: none that others wait for.
SELECT log.position_at_v1($1)
