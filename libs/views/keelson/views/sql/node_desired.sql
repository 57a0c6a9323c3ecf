-- Gives what each node that is there should do: its instances that have not stopped. The version counts those that have
-- stopped too, so that it never goes back; it is 0 of a node that never had one.
-- Parameters: none; asked by node_id it reads that node's instances alone, and of those that have stopped none.
-- Locks: none that others wait for.
SELECT
    n.id AS node_id,
    coalesce(moved.version, 0) AS version,
    coalesce(wanted.items, '[]'::json) AS items
FROM nodes AS n
CROSS JOIN LATERAL (
    SELECT max(i.desired_position) AS version FROM instances AS i WHERE i.node_id = n.id
) AS moved
CROSS JOIN LATERAL (
    SELECT json_agg(
        json_build_object(
            'instance_id', i.id,
            'org_id', i.org_id,
            'project_id', i.project_id,
            'app_id', i.app_id,
            'env_id', i.env_id,
            'process', i.process,
            'release_id', i.release_id,
            'release_number', i.release_number,
            'secret_version', i.secret_version,
            'spec', i.spec,
            'spec_hash', i.spec_hash,
            'desired_state', i.desired_state
        ) ORDER BY i.id
    ) AS items
    FROM instances AS i
    WHERE i.node_id = n.id AND i.status IN ('booting', 'ready', 'draining', 'failed')
) AS wanted
WHERE n.deleted_at IS NULL
