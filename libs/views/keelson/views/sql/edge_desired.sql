-- Gives where each hostname leads: the ready instances of its route's process that have an endpoint of its port. One row
-- says it to all edges. The version counts whatever routes and instances have come to, so that it never goes back.
-- Parameters: none.
-- Locks: none that others wait for.
SELECT
    'all' AS edge,
    coalesce(greatest((SELECT max(position) FROM routes), (SELECT max(position) FROM instances)), 0) AS version,
    coalesce(routed.items, '[]'::json) AS items
FROM (
    SELECT json_agg(
        json_build_object(
            'hostname', r.hostname,
            'route_id', r.id,
            'org_id', r.org_id,
            'project_id', r.project_id,
            'app_id', r.app_id,
            'env_id', r.env_id,
            'process', r.process,
            'port', r.port,
            'backends', coalesce(behind.backends, '[]'::json)
        ) ORDER BY r.hostname
    ) AS items
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
) AS routed
