-- Gives the events after a position, in order, to the end of the command in which the page is full, and the head of the
-- same snapshot. At least one row; without events after the position, its event columns are null.
-- $1 bigint: the position that was read last; $2 bigint: how many events, $3 bigint: how many bytes of payloads fill a
-- page (a command's rest may follow).
-- Positions have no gaps, so the limit is a range, and the planner needs no estimate. Sizes are those of the text, not of
-- what is stored: compressed it can be a hundredth.
-- Locks: none that others wait for.
SELECT h.position AS head, h.epoch, e.position, e.aggregate_id, e.seq, e.type, e.version, e.actor_type, e.actor_id, e.request_id, e.command_id, e.command_end,
    e.recorded_at, e.payload, e.org_id, e.project_id, e.app_id, e.env_id, e.node_id, e.reason, e.correlation_id,
    e.causation_id, e.traceparent
FROM log.head AS h
LEFT JOIN log.events AS e
    ON e.position > $1 AND e.position <= (
        SELECT x.position FROM log.events AS x
        WHERE x.command_end AND x.position >= coalesce(
            (
                SELECT f.position
                FROM (
                    SELECT y.position, sum(octet_length(y.payload::text)) OVER (ORDER BY y.position) AS bytes
                    FROM log.events AS y
                    WHERE y.position > $1 AND y.position <= least(least($1, h.position) + $2, h.position)
                    ORDER BY y.position
                ) AS f
                WHERE f.bytes >= $3
                LIMIT 1
            ),
            least(least($1, h.position) + $2, h.position)
        )
        ORDER BY x.position LIMIT 1
    )
ORDER BY e.position
