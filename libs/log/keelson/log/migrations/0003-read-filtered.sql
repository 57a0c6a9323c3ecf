-- reading the log filtered, within a bounded window, to the end of a command
-- depends: 0002-begin-epoch

-- migrate: apply

-- Both functions: p_limit counts matches, p_window what may be examined: events of the organisation or environment
-- where one is asked for (there is an index), positions otherwise. Null matches everything. At least one row comes
-- back; without a match its event columns are null. `examined` is the cursor to go on from. One snapshot (F3), and a
-- plan of its own for each call, so that the partial indexes are used. Locks: none that others wait for.

-- Oldest first, after p_after, to the end of the command that the limit or the window falls in.
CREATE FUNCTION log.read_filtered_asc_v1(
    p_after bigint, p_limit bigint, p_window bigint,
    p_org_id text, p_project_id text, p_app_id text, p_env_id text, p_node_id text, p_aggregate_type text,
    p_aggregate_id text, p_type text, p_actor_id text, p_request_id text, p_correlation_id text
) RETURNS TABLE (
    examined bigint, head bigint, epoch text, "position" bigint, aggregate_id text, seq bigint, type text, version integer, actor_type text, actor_id text,
    request_id text, command_id text, command_end boolean, recorded_at timestamptz, payload json, org_id text,
    project_id text, app_id text, env_id text, node_id text, reason text, correlation_id text, causation_id bigint,
    traceparent text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    WITH scope AS (
        SELECT h.position AS head, h.epoch, coalesce(
            CASE
                WHEN p_org_id IS NULL AND p_env_id IS NULL THEN least(p_after + p_window, h.position)
                ELSE (
                    SELECT e.position FROM log.events AS e
                    WHERE e.position > p_after
                        AND (p_org_id IS NULL OR e.org_id = p_org_id)
                        AND (p_env_id IS NULL OR e.env_id = p_env_id)
                    ORDER BY e.position OFFSET p_window - 1 LIMIT 1
                )
            END, h.position
        ) AS until
        FROM log.head AS h
    ), bounded AS (
        SELECT s.head, s.epoch, coalesce((
            SELECT x.position FROM log.events AS x
            WHERE x.command_end AND x.position >= coalesce((
                SELECT e.position FROM log.events AS e
                WHERE e.position > p_after AND e.position <= s.until
                    AND (p_org_id IS NULL OR e.org_id = p_org_id)
                    AND (p_project_id IS NULL OR e.project_id = p_project_id)
                    AND (p_app_id IS NULL OR e.app_id = p_app_id)
                    AND (p_env_id IS NULL OR e.env_id = p_env_id)
                    AND (p_node_id IS NULL OR e.node_id = p_node_id)
                    AND (p_aggregate_type IS NULL OR starts_with(e.aggregate_id, p_aggregate_type || '_'))
                    AND (p_aggregate_id IS NULL OR e.aggregate_id = p_aggregate_id)
                    AND (p_type IS NULL OR e.type = p_type)
                    AND (p_actor_id IS NULL OR e.actor_id = p_actor_id)
                    AND (p_request_id IS NULL OR e.request_id = p_request_id)
                    AND (p_correlation_id IS NULL OR e.correlation_id = p_correlation_id)
                ORDER BY e.position OFFSET p_limit - 1 LIMIT 1
            ), s.until)
            ORDER BY x.position LIMIT 1
        ), s.head) AS until
        FROM scope AS s
    )
    SELECT b.until, b.head, b.epoch,
        e.position, e.aggregate_id, e.seq, e.type, e.version, e.actor_type, e.actor_id, e.request_id, e.command_id,
        e.command_end, e.recorded_at, e.payload, e.org_id, e.project_id, e.app_id, e.env_id, e.node_id, e.reason,
        e.correlation_id, e.causation_id, e.traceparent
    FROM bounded AS b
    LEFT JOIN log.events AS e
        ON e.position > p_after AND e.position <= b.until
        AND (p_org_id IS NULL OR e.org_id = p_org_id)
        AND (p_project_id IS NULL OR e.project_id = p_project_id)
        AND (p_app_id IS NULL OR e.app_id = p_app_id)
        AND (p_env_id IS NULL OR e.env_id = p_env_id)
        AND (p_node_id IS NULL OR e.node_id = p_node_id)
        AND (p_aggregate_type IS NULL OR starts_with(e.aggregate_id, p_aggregate_type || '_'))
        AND (p_aggregate_id IS NULL OR e.aggregate_id = p_aggregate_id)
        AND (p_type IS NULL OR e.type = p_type)
        AND (p_actor_id IS NULL OR e.actor_id = p_actor_id)
        AND (p_request_id IS NULL OR e.request_id = p_request_id)
        AND (p_correlation_id IS NULL OR e.correlation_id = p_correlation_id)
    ORDER BY e.position
$$;

-- Newest first, below p_before (0: from the head), down to the start of the command that the limit or the window
-- falls in; examined is 0 once the first event was examined.
CREATE FUNCTION log.read_filtered_desc_v1(
    p_before bigint, p_limit bigint, p_window bigint,
    p_org_id text, p_project_id text, p_app_id text, p_env_id text, p_node_id text, p_aggregate_type text,
    p_aggregate_id text, p_type text, p_actor_id text, p_request_id text, p_correlation_id text
) RETURNS TABLE (
    examined bigint, head bigint, epoch text, "position" bigint, aggregate_id text, seq bigint, type text, version integer, actor_type text, actor_id text,
    request_id text, command_id text, command_end boolean, recorded_at timestamptz, payload json, org_id text,
    project_id text, app_id text, env_id text, node_id text, reason text, correlation_id text, causation_id bigint,
    traceparent text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    WITH top AS (
        SELECT h.position AS head, h.epoch, CASE WHEN p_before = 0 THEN h.position + 1 ELSE p_before END AS below
        FROM log.head AS h
    ), scope AS (
        SELECT t.head, t.epoch, t.below, coalesce(
            CASE
                WHEN p_org_id IS NULL AND p_env_id IS NULL THEN greatest(t.below - p_window, 1)
                ELSE (
                    SELECT e.position FROM log.events AS e
                    WHERE e.position < t.below
                        AND (p_org_id IS NULL OR e.org_id = p_org_id)
                        AND (p_env_id IS NULL OR e.env_id = p_env_id)
                    ORDER BY e.position DESC OFFSET p_window - 1 LIMIT 1
                )
            END, 1
        ) AS since
        FROM top AS t
    ), bounded AS (
        SELECT s.head, s.epoch, s.below, coalesce((
            SELECT x.position + 1 FROM log.events AS x
            WHERE x.command_end AND x.position < coalesce((
                SELECT e.position FROM log.events AS e
                WHERE e.position < s.below AND e.position >= s.since
                    AND (p_org_id IS NULL OR e.org_id = p_org_id)
                    AND (p_project_id IS NULL OR e.project_id = p_project_id)
                    AND (p_app_id IS NULL OR e.app_id = p_app_id)
                    AND (p_env_id IS NULL OR e.env_id = p_env_id)
                    AND (p_node_id IS NULL OR e.node_id = p_node_id)
                    AND (p_aggregate_type IS NULL OR starts_with(e.aggregate_id, p_aggregate_type || '_'))
                    AND (p_aggregate_id IS NULL OR e.aggregate_id = p_aggregate_id)
                    AND (p_type IS NULL OR e.type = p_type)
                    AND (p_actor_id IS NULL OR e.actor_id = p_actor_id)
                    AND (p_request_id IS NULL OR e.request_id = p_request_id)
                    AND (p_correlation_id IS NULL OR e.correlation_id = p_correlation_id)
                ORDER BY e.position DESC OFFSET p_limit - 1 LIMIT 1
            ), s.since)
            ORDER BY x.position DESC LIMIT 1
        ), 1) AS since
        FROM scope AS s
    )
    SELECT CASE WHEN b.since = 1 THEN 0 ELSE b.since END, b.head, b.epoch,
        e.position, e.aggregate_id, e.seq, e.type, e.version, e.actor_type, e.actor_id, e.request_id, e.command_id,
        e.command_end, e.recorded_at, e.payload, e.org_id, e.project_id, e.app_id, e.env_id, e.node_id, e.reason,
        e.correlation_id, e.causation_id, e.traceparent
    FROM bounded AS b
    LEFT JOIN log.events AS e
        ON e.position < b.below AND e.position >= b.since
        AND (p_org_id IS NULL OR e.org_id = p_org_id)
        AND (p_project_id IS NULL OR e.project_id = p_project_id)
        AND (p_app_id IS NULL OR e.app_id = p_app_id)
        AND (p_env_id IS NULL OR e.env_id = p_env_id)
        AND (p_node_id IS NULL OR e.node_id = p_node_id)
        AND (p_aggregate_type IS NULL OR starts_with(e.aggregate_id, p_aggregate_type || '_'))
        AND (p_aggregate_id IS NULL OR e.aggregate_id = p_aggregate_id)
        AND (p_type IS NULL OR e.type = p_type)
        AND (p_actor_id IS NULL OR e.actor_id = p_actor_id)
        AND (p_request_id IS NULL OR e.request_id = p_request_id)
        AND (p_correlation_id IS NULL OR e.correlation_id = p_correlation_id)
    ORDER BY e.position DESC
$$;

-- The last position recorded at or before a time, 0 if there is none: by bisection, since time follows order.
CREATE FUNCTION log.position_at_v1(p_time timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    low bigint := 0;
    high bigint := (SELECT position FROM log.head);
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF (SELECT recorded_at FROM log.events WHERE position = middle) <= p_time THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;

-- migrate: rollback
