-- Compares what each environment wants of each process with the instances that there are: EnvStatusRow says by which
-- rules. Of a process that left the release there is a row for as long as instances of it are wanted running.
-- Parameters: none; asked by env_id it reads that environment's processes and live instances alone.
-- Locks: none that others wait for.
SELECT
    wanted.env_id,
    wanted.process,
    env.org_id,
    env.project_id,
    env.app_id,
    wanted.desired,
    found.ready,
    CASE
        WHEN found.ready >= wanted.desired AND found.outdated = 0 THEN 'healthy'
        WHEN found.ready >= wanted.desired OR found.lost = 0 THEN 'progressing'
        WHEN found.ready > 0 THEN 'degraded'
        ELSE 'failed'
    END AS status
FROM (
    SELECT env_id, process, release_id, replicas AS desired FROM env_processes
    UNION ALL
    SELECT DISTINCT i.env_id, i.process, NULL, 0
    FROM instances AS i
    WHERE i.desired_state = 'running'
        AND i.status IN ('booting', 'ready', 'draining', 'failed')
        AND NOT EXISTS (SELECT FROM env_processes AS p WHERE p.env_id = i.env_id AND p.process = i.process)
) AS wanted
JOIN envs AS env ON env.id = wanted.env_id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE i.release_id = wanted.release_id AND i.status = 'ready' AND n.state <> 'offline') AS ready,
        count(*) FILTER (WHERE i.release_id = wanted.release_id AND (i.status = 'failed' OR n.state = 'offline')) AS lost,
        count(*) FILTER (WHERE i.release_id IS DISTINCT FROM wanted.release_id) AS outdated
    FROM instances AS i
    JOIN nodes AS n ON n.id = i.node_id
    WHERE i.env_id = wanted.env_id
        AND i.process = wanted.process
        AND i.desired_state = 'running'
        AND i.status IN ('booting', 'ready', 'draining', 'failed')
) AS found
