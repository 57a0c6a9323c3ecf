-- Gives how far every projection is, who runs it, and the head of the same snapshot; one row with nulls when there is
-- no projection yet. lag_s is the age in seconds of the oldest event that it has not applied; rate
-- is what the runner wrote last, forgotten over some 10 s since: an idle projection has none.
-- Parameters: none.
-- Locks: none that others wait for.
SELECT
    head.epoch,
    head.position AS head,
    checkpoints.projection AS name,
    checkpoints.version,
    checkpoints.state,
    checkpoints.position AS checkpoint,
    head.position - checkpoints.position AS lag_events,
    greatest(extract(epoch FROM clock_timestamp() - unapplied.recorded_at), 0)::double precision AS lag_s,
    checkpoints.rate
        * exp(greatest(extract(epoch FROM checkpoints.updated_at - clock_timestamp()) / 10, -100)::double precision) AS rate,
    leases.holder,
    checkpoints.error_position,
    checkpoints.error_type,
    checkpoints.error_message
FROM log.head AS head
LEFT JOIN ops.checkpoints AS checkpoints ON true
LEFT JOIN log.events AS unapplied ON unapplied.position = checkpoints.position + 1
LEFT JOIN ops.leases AS leases ON leases.name = checkpoints.projection AND leases.expires_at > clock_timestamp()
ORDER BY checkpoints.projection
