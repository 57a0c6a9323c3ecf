-- Gives how far every projection is, who runs it, and the head of the same snapshot; one row with nulls when no
-- projection has begun. lag_s is the age in seconds of the oldest event that it has not applied; rate is what the
-- runner wrote last, forgotten over some 10 s since: an idle projection has none. Neither minds a
-- clock that has been put back since (F11).
-- Parameters: none.
-- Locks: none that others wait for.
SELECT
    head.epoch,
    head.position AS head,
    checkpoints.projection,
    checkpoints.version,
    checkpoints.position,
    checkpoints.state,
    checkpoints.rate
        * exp(least(greatest(extract(epoch FROM checkpoints.updated_at - clock_timestamp()) / 10, -100), 0)::double precision)
        AS rate,
    greatest(extract(epoch FROM clock_timestamp() - unapplied.recorded_at), 0)::double precision AS lag_s,
    leases.holder,
    checkpoints.error_position,
    checkpoints.error_type,
    checkpoints.error_message
FROM log.head AS head
LEFT JOIN ops.checkpoints AS checkpoints ON true
LEFT JOIN log.events AS unapplied ON unapplied.position = checkpoints.position + 1
LEFT JOIN ops.leases AS leases ON leases.name = checkpoints.projection AND leases.expires_at > clock_timestamp()
ORDER BY checkpoints.projection
