-- reading the log filtered, within a bounded window, to the end of a command
-- depends: 0002-begin-epoch

-- migrate: apply

-- Gives matching events after p_from, oldest first, or with p_descending below it (0: from the head), newest first.
-- p_limit counts matches, p_window what may be examined: events of the organisation or environment where one is asked
-- for (there is an index), positions otherwise. Null filters match everything. The page ends where a command ends
-- (descending: where one begins), so it may exceed the limit by the rest of one.
--
-- At least one row, if the log was ever begun; without a match its event columns are null. `examined` is the cursor to go on from: ascending the
-- head at the end, descending 0 once the first event was examined. Being STABLE, all of it is of one snapshot (F3).
-- Statements are made of the filters that are given, so that each is planned for them; values are parameters.
-- Locks: none that others wait for.
CREATE FUNCTION log.read_filtered_v1(
    p_from bigint, p_limit bigint, p_window bigint, p_descending boolean,
    p_org_id text, p_project_id text, p_app_id text, p_env_id text, p_node_id text, p_aggregate_type text,
    p_aggregate_id text, p_type text, p_actor_id text, p_request_id text, p_correlation_id text
) RETURNS TABLE (
    examined bigint, head bigint, epoch text, "position" bigint, aggregate_id text, seq bigint, type text,
    version integer, actor_type text, actor_id text, request_id text, command_id text, command_end boolean,
    recorded_at timestamptz, payload json, org_id text, project_id text, app_id text, env_id text, node_id text,
    reason text, correlation_id text, causation_id bigint, traceparent text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    h log.head;
    -- Where it starts, exclusively, and where it ends, inclusively.
    start bigint := p_from;
    edge bigint;
    direction CONSTANT text := CASE WHEN p_descending THEN 'DESC' ELSE 'ASC' END;
    beyond CONSTANT text := CASE WHEN p_descending THEN 'e.position < $1' ELSE 'e.position > $1' END;
    within CONSTANT text := CASE WHEN p_descending THEN 'e.position >= $2' ELSE 'e.position <= $2' END;
    -- $1 start, $2 edge, $3 … $13 the filters.
    indexed CONSTANT text := concat(
        CASE WHEN p_org_id IS NOT NULL THEN ' AND e.org_id = $3' END,
        CASE WHEN p_env_id IS NOT NULL THEN ' AND e.env_id = $6' END
    );
    matching CONSTANT text := concat(
        indexed,
        CASE WHEN p_project_id IS NOT NULL THEN ' AND e.project_id = $4' END,
        CASE WHEN p_app_id IS NOT NULL THEN ' AND e.app_id = $5' END,
        CASE WHEN p_node_id IS NOT NULL THEN ' AND e.node_id = $7' END,
        CASE WHEN p_aggregate_type IS NOT NULL THEN $q$ AND starts_with(e.aggregate_id, $8 || '_')$q$ END,
        CASE WHEN p_aggregate_id IS NOT NULL THEN ' AND e.aggregate_id = $9' END,
        CASE WHEN p_type IS NOT NULL THEN ' AND e.type = $10' END,
        CASE WHEN p_actor_id IS NOT NULL THEN ' AND e.actor_id = $11' END,
        CASE WHEN p_request_id IS NOT NULL THEN ' AND e.request_id = $12' END,
        CASE WHEN p_correlation_id IS NOT NULL THEN ' AND e.correlation_id = $13' END
    );
    -- The place of the n-th event from the start; n - 1 is put in by format.
    nth CONSTANT text := 'SELECT e.position FROM log.events AS e WHERE %s ORDER BY e.position %s OFFSET %s LIMIT 1';
    last_match bigint;
BEGIN
    SELECT * INTO h FROM log.head;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_descending AND p_from = 0 THEN
        start := h.position + 1;
    END IF;
    edge := CASE WHEN p_descending THEN greatest(start - p_window, 1) ELSE least(least(start, h.position) + p_window, h.position) END;
    IF indexed <> '' THEN
        EXECUTE format(nth, beyond || indexed, direction, p_window - 1) INTO edge
        USING start, edge, p_org_id, p_project_id, p_app_id, p_env_id;
        edge := coalesce(edge, CASE WHEN p_descending THEN 1 ELSE h.position END);
    END IF;
    EXECUTE format(nth, concat_ws(' AND ', beyond, within) || matching, direction, p_limit - 1) INTO last_match
    USING start, edge, p_org_id, p_project_id, p_app_id, p_env_id, p_node_id, p_aggregate_type, p_aggregate_id, p_type,
        p_actor_id, p_request_id, p_correlation_id;
    edge := coalesce(last_match, edge);
    IF p_descending THEN
        edge := coalesce((
            SELECT max(e.position) FROM log.events AS e WHERE e.position < edge AND e.command_end
        ), 0) + 1;
    ELSE
        edge := coalesce((
            SELECT min(e.position) FROM log.events AS e WHERE e.position >= edge AND e.command_end
        ), h.position);
    END IF;
    examined := CASE WHEN p_descending AND edge = 1 THEN 0 ELSE edge END;
    RETURN QUERY EXECUTE format(
        'SELECT $14, $15, $16, e.position, e.aggregate_id, e.seq, e.type, e.version, e.actor_type, e.actor_id, '
        'e.request_id, e.command_id, e.command_end, e.recorded_at, e.payload, e.org_id, e.project_id, e.app_id, '
        'e.env_id, e.node_id, e.reason, e.correlation_id, e.causation_id, e.traceparent '
        'FROM log.events AS e WHERE %s ORDER BY e.position %s',
        concat_ws(' AND ', beyond, within) || matching, direction
    ) USING start, edge, p_org_id, p_project_id, p_app_id, p_env_id, p_node_id, p_aggregate_type, p_aggregate_id,
        p_type, p_actor_id, p_request_id, p_correlation_id, examined, h.position, h.epoch;
    IF NOT FOUND THEN
        RETURN QUERY SELECT
            examined, h.position, h.epoch, NULL::bigint, NULL::text, NULL::bigint, NULL::text, NULL::integer,
            NULL::text, NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::timestamptz, NULL::json, NULL::text,
            NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::bigint, NULL::text;
    END IF;
END
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
