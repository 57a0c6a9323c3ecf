-- Gives events of an environment in order, by the index events_env.
-- $1 text: its id; $2 bigint: the position that was read last; $3 bigint: the last one that counts; $4 text[]: types of
-- aggregates; $5 bigint: how many.
-- Locks: none that others wait for.
SELECT position, aggregate_id, seq, type, version, actor_type, actor_id, request_id, command_id, command_end, recorded_at,
    payload, org_id, project_id, app_id, env_id, node_id, reason, correlation_id, causation_id, traceparent
FROM log.events
WHERE env_id = $1 AND position > $2 AND position <= $3 AND split_part(type, '.', 1) = ANY ($4)
ORDER BY position
LIMIT $5
