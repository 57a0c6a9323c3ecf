-- Gives what each node should do: its instances that have not stopped. The version counts those that have stopped too, so
-- that it never goes back.
-- Parameters: none; asked by node_id it reads that node's instances alone.
-- Locks: none that others wait for.
SELECT
    i.node_id,
    i.id AS instance_id,
    i.org_id,
    i.project_id,
    i.app_id,
    i.env_id,
    i.process,
    i.release_id,
    i.release_number,
    i.secret_version,
    i.spec,
    i.spec_hash,
    i.desired_state,
    (SELECT max(own.desired_position) FROM instances AS own WHERE own.node_id = i.node_id) AS version
FROM instances AS i
WHERE i.status IN ('booting', 'ready', 'draining', 'failed')
