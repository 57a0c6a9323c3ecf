-- Gives an aggregate's events in order.
-- $1 text: its id; $2 bigint: the seq that was read last; $3 bigint: how many.
-- Locks: none that others wait for.
SELECT position, aggregate_id, seq, type, version, actor_type, actor_id, request_id, command_id, command_end, recorded_at,
    payload, org_id, project_id, app_id, env_id, node_id, reason, correlation_id, causation_id, traceparent
FROM log.events
WHERE aggregate_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
