-- Gives the last position at which a command ends, up to one; 0 if there is none before it, null beyond the head.
-- It goes back over one command's events at most.
-- $1 bigint: the position.
-- Locks: none that others wait for.
SELECT coalesce((
    SELECT e.position FROM log.events AS e WHERE e.position <= $1 AND e.command_end ORDER BY e.position DESC LIMIT 1
), 0)
FROM log.head AS h
WHERE h.position >= $1
