-- insert_one: one row, as pgbench sends it, in a transaction of its own; %(payload)s is filled in beforehand.
-- Locks: the row's own.
\set n random(1, 9000000000000000)
INSERT INTO bench.events (aggregate_id, seq, type, version, org_id, project_id, app_id, env_id, actor_type, actor_id, request_id, command_id, command_end, recorded_at, payload) VALUES ('env_' || :n, 1, 'env.config_set', 1, 'org_00000000000000000000000001', 'project_00000000000000000000000001', 'app_00000000000000000000000001', 'env_' || :n, 'system', 'operator', 'request', 'command_' || :n, true, clock_timestamp(), '%(payload)s');
