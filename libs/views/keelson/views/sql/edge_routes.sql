-- Gives where each hostname leads: the ready instances of its route's process that have an endpoint of its port.
-- Parameters: none.
-- Locks: none that others wait for.
SELECT
    r.hostname,
    r.id AS route_id,
    r.org_id,
    r.project_id,
    r.app_id,
    r.env_id,
    r.process,
    r.port,
    coalesce(behind.backends, '[]'::json) AS backends,
    greatest((SELECT max(position) FROM routes), (SELECT max(position) FROM instances)) AS version
FROM routes AS r
LEFT JOIN LATERAL (
    SELECT json_agg(
        json_build_object(
            'host', i.endpoints -> r.port -> 'host', 'port', i.endpoints -> r.port -> 'port', 'instance_id', i.id
        ) ORDER BY i.id
    ) AS backends
    FROM instances AS i
    WHERE i.env_id = r.env_id
        AND i.process = r.process
        AND i.status = 'ready'
        AND i.desired_state = 'running'
        AND i.endpoints -> r.port IS NOT NULL
) AS behind ON true
WHERE r.deleted_at IS NULL
