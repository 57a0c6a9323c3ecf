-- Gives the names of the log's epochs that have ended; none where a second one never began.
-- No parameters. Locks: none that others wait for.
SELECT array(
    SELECT payload ->> 'previous'
    FROM log.events
    WHERE aggregate_id = 'platform_00000000000000000000000000'
        AND type = 'platform.epoch_began' AND payload ->> 'previous' IS NOT NULL
)
