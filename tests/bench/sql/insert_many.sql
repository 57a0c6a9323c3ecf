-- insert_many: as many rows in one statement as there are aggregates.
-- $1 text[]: the aggregates' ids, none of which has a row yet; $2 text[]: the payloads.
-- Locks: the rows' own.
INSERT INTO bench.events (
    aggregate_id, seq, type, version, org_id, project_id, app_id, env_id, actor_type, actor_id, request_id,
    command_id, command_end, recorded_at, payload
)
SELECT
    t.aggregate_id, 1, 'env.config_set', 1, 'org_00000000000000000000000001', 'project_00000000000000000000000001',
    'app_00000000000000000000000001', t.aggregate_id, 'system', 'operator', 'request', t.aggregate_id, true,
    clock_timestamp(), t.payload::json
FROM unnest($1::text[], $2::text[]) AS t (aggregate_id, payload)
