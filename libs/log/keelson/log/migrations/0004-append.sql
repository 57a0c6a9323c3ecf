-- the append function, the log's only write path, and the confirmation of what appends nothing
-- depends: 0003-read-filtered

-- migrate: apply

-- Appends one group of decisions: each succeeds or fails by itself, all that succeed commit together.
--
-- Run as a single autocommitted statement at READ COMMITTED, so that each statement in here sees what was committed
-- before the head's lock was granted, and a client that freezes holds no lock (ADR 0002).
--
-- Arrays of one prefix have one length; *_decision numbers the decisions from 1. Decisions: d_ who asked for what under
-- which key, the keyed hash of the request, the answer to store, the number of its events. Reads: r_ aggregates with
-- the seq they were read at (0: did not exist), s_ scopes with the version they were read at (0: no row), k_ claim keys
-- with their holder (null: nobody). Limits: l_ what a scope may hold afterwards (null: no limit). Claims: f_ what an
-- aggregate frees in a scope, t_ what is taken, each with the number of its event (_at): a key must be free by then, also
-- one that the decision frees again later and so does not keep. Events: e_ in order, those of a decision together. Vault: v_ people, a
-- null e-mail erases.
--
-- Returns a row with decision 0, outcome 'appended' and the head's position before the group; then one row for each
-- decision that was not done: 'replayed' or 'key_reused' (its key is known), 'moved' (its read set has changed),
-- 'taken' (another holds a key it takes), 'over_limit'. The done ones got the next positions in their order.
-- Raises KE001 when the head is of another epoch (DETAIL is its name), KE002 when decisions of the group depend on one
-- another, KE003 when an event does not continue its aggregate as it was read.
-- Plans are made once a session, for tables that may still be small by then and will not stay so: whatever is looked up
-- is looked up in an index (no sequential scan, and no join where a hash of a whole table could be thought of).
-- Locks: the head's row, from its first statement to the commit.
CREATE FUNCTION log.append_v1(
    p_epoch text,
    d_command_id text[], d_actor_type text[], d_actor_id text[], d_name text[], d_key text[], d_request_hash bytea[],
    d_answer text[], d_events integer[],
    r_decision integer[], r_aggregate_id text[], r_seq bigint[],
    s_decision integer[], s_scope text[], s_version bigint[],
    k_decision integer[], k_scope text[], k_key text[], k_holder text[],
    l_decision integer[], l_scope text[], l_held bigint[], l_amount bigint[],
    f_decision integer[], f_scope text[], f_aggregate_id text[], f_at integer[],
    t_decision integer[], t_scope text[], t_key text[], t_aggregate_id text[], t_amount bigint[], t_at integer[],
    t_kept boolean[],
    e_decision integer[], e_aggregate_id text[], e_seq bigint[], e_type text[], e_version integer[],
    e_org_id text[], e_project_id text[], e_app_id text[], e_env_id text[], e_node_id text[],
    e_actor_type text[], e_actor_id text[], e_reason text[], e_request_id text[], e_correlation_id text[],
    e_causation_id bigint[], e_traceparent text[], e_command_id text[], e_command_end boolean[], e_payload text[],
    v_decision integer[], v_person_id text[], v_email text[], v_name text[]
) RETURNS TABLE (
    decision integer, outcome text, first_position bigint, last_position bigint, command_id text, detail text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    h log.head;
    began timestamptz;
    failed integer[];
    -- The decisions that were answered without being done, each once: when all are, nothing is left to do.
    settled integer[] := '{}';
    appended bigint;
    freed_scope text[];
    freed_amount bigint[];
BEGIN
    SELECT * INTO STRICT h FROM log.head FOR UPDATE;
    IF h.epoch <> p_epoch THEN
        RAISE EXCEPTION 'the log is in another epoch' USING ERRCODE = 'KE001', DETAIL = h.epoch;
    END IF;
    PERFORM log.assert_independent_v1(
        d_actor_type, d_actor_id, d_name, d_key, r_decision, r_aggregate_id, s_decision || l_decision || k_decision,
        s_scope || l_scope || k_scope, f_decision || t_decision, f_scope || t_scope, t_decision, t_scope, t_key,
        e_decision, e_aggregate_id
    );

    -- Keys come first: what was answered once is answered so again, whatever has happened since.
    failed := ARRAY(
        SELECT d.n::integer
        FROM unnest(d_actor_type, d_actor_id, d_name, d_key)
            WITH ORDINALITY AS d (actor_type, actor_id, name, key, n)
        WHERE (
            SELECT true FROM log.idempotency_keys AS i
            WHERE i.actor_type = d.actor_type AND i.actor_id = d.actor_id AND i.name = d.name AND i.key = d.key
        )
    );
    IF failed <> '{}' THEN
        RETURN QUERY
            SELECT n, CASE WHEN i.request_hash = d_request_hash[n] THEN 'replayed' ELSE 'key_reused' END,
                i.first_position, i.position, i.command_id, i.answer
            FROM unnest(failed) AS n
            JOIN log.idempotency_keys AS i
                ON i.actor_type = d_actor_type[n] AND i.actor_id = d_actor_id[n]
                AND i.name = d_name[n] AND i.key = d_key[n];
        settled := settled || failed;
    END IF;

    -- The read sets.
    failed := ARRAY(
        SELECT r.decision FROM unnest(r_decision, r_aggregate_id, r_seq) AS r (decision, aggregate_id, seq)
        WHERE r.decision <> ALL (settled) AND r.seq <> coalesce((
            SELECT e.seq FROM log.events AS e WHERE e.aggregate_id = r.aggregate_id ORDER BY e.seq DESC LIMIT 1
        ), 0)
        UNION
        SELECT s.decision FROM unnest(s_decision, s_scope, s_version) AS s (decision, scope, version)
        WHERE s.decision <> ALL (settled)
            AND s.version <> coalesce((SELECT c.version FROM log.claim_scopes AS c WHERE c.scope = s.scope), 0)
        UNION
        SELECT k.decision FROM unnest(k_decision, k_scope, k_key, k_holder) AS k (decision, scope, key, holder)
        WHERE k.decision <> ALL (settled) AND k.holder IS DISTINCT FROM (
            SELECT c.aggregate_id FROM log.claims AS c WHERE c.scope = k.scope AND c.key = k.key
        )
    );
    IF failed <> '{}' THEN
        RETURN QUERY SELECT n, 'moved', NULL::bigint, h.position, NULL::text, NULL::text FROM unnest(failed) AS n;
        settled := settled || failed;
    END IF;

    -- Keys that another holds, and that the same decision does not free.
    IF t_decision <> '{}' THEN
        failed := ARRAY(
            SELECT DISTINCT t.decision
            FROM unnest(t_decision, t_scope, t_key, t_at) AS t (decision, scope, key, at)
            JOIN log.claims AS c USING (scope, key)
            WHERE t.decision <> ALL (settled) AND NOT EXISTS (
                SELECT FROM unnest(f_decision, f_scope, f_aggregate_id, f_at) AS f (decision, scope, aggregate_id, at)
                WHERE f.decision = t.decision AND f.scope = c.scope AND f.aggregate_id = c.aggregate_id
                    AND f.at <= t.at
            )
        );
        IF failed <> '{}' THEN
            RETURN QUERY
                SELECT DISTINCT ON (t.decision) t.decision, 'taken', NULL::bigint, h.position, NULL::text,
                    json_build_object('scope', c.scope, 'key', c.key, 'holder', c.aggregate_id)::text
                FROM unnest(t_decision, t_scope, t_key, t_at) AS t (decision, scope, key, at)
                JOIN log.claims AS c USING (scope, key)
                WHERE t.decision = ANY (failed) AND NOT EXISTS (
                    SELECT FROM unnest(f_decision, f_scope, f_aggregate_id, f_at)
                        AS f (decision, scope, aggregate_id, at)
                    WHERE f.decision = t.decision AND f.scope = c.scope AND f.aggregate_id = c.aggregate_id
                        AND f.at <= t.at
                )
                ORDER BY t.decision, t.at;
            settled := settled || failed;
        END IF;
    END IF;

    -- What a limited scope would hold afterwards.
    IF l_decision <> '{}' THEN
        failed := ARRAY(
            SELECT DISTINCT o.decision
            FROM log.held_afterwards_v1(
                l_decision, l_scope, f_decision, f_scope, f_aggregate_id, t_decision, t_scope, t_amount, t_kept
            ) WITH ORDINALITY AS o (decision, scope, held, amount, n)
            WHERE o.decision <> ALL (settled) AND (o.held > l_held[o.n] OR o.amount > l_amount[o.n])
        );
        IF failed <> '{}' THEN
            RETURN QUERY
                SELECT o.decision, 'over_limit', NULL::bigint, h.position, NULL::text,
                    json_build_object('scope', o.scope, 'held', o.held, 'amount', o.amount)::text
                FROM log.held_afterwards_v1(
                    l_decision, l_scope, f_decision, f_scope, f_aggregate_id, t_decision, t_scope, t_amount, t_kept
                ) WITH ORDINALITY AS o (decision, scope, held, amount, n)
                WHERE o.decision = ANY (failed) AND (o.held > l_held[o.n] OR o.amount > l_amount[o.n]);
            settled := settled || failed;
        END IF;
    END IF;

    RETURN QUERY SELECT 0, 'appended', NULL::bigint, h.position, NULL::text, NULL::text;
    IF cardinality(settled) >= cardinality(d_key) THEN
        RETURN;
    END IF;

    -- Every event continues its aggregate as it was read; the reads were compared with the log above.
    IF EXISTS (
        SELECT FROM (
            SELECT e.aggregate_id, min(e.seq) AS first, max(e.seq) AS last, count(*) AS events
            FROM unnest(e_aggregate_id, e_seq) AS e (aggregate_id, seq) GROUP BY e.aggregate_id
        ) AS e
        WHERE e.last - e.first + 1 <> e.events OR (e.aggregate_id, e.first - 1) NOT IN (
            SELECT r.aggregate_id, r.seq FROM unnest(r_aggregate_id, r_seq) AS r (aggregate_id, seq)
        )
    ) THEN
        RAISE EXCEPTION 'an event does not continue its aggregate as it was read' USING ERRCODE = 'KE003';
    END IF;

    began := greatest(h.recorded_at, clock_timestamp());
    INSERT INTO log.events (
        position, aggregate_id, seq, type, version, org_id, project_id, app_id, env_id, node_id, actor_type, actor_id,
        reason, request_id, correlation_id, causation_id, traceparent, command_id, command_end, recorded_at, payload
    )
    SELECT
        h.position + row_number() OVER (ORDER BY e.n), e.aggregate_id, e.seq, e.type, e.version, e.org_id, e.project_id,
        e.app_id, e.env_id, e.node_id, e.actor_type, e.actor_id, e.reason, e.request_id, e.correlation_id,
        e.causation_id, e.traceparent, e.command_id, e.command_end, began, e.payload::json
    FROM unnest(
        e_decision, e_aggregate_id, e_seq, e_type, e_version, e_org_id, e_project_id, e_app_id, e_env_id, e_node_id,
        e_actor_type, e_actor_id, e_reason, e_request_id, e_correlation_id, e_causation_id, e_traceparent, e_command_id,
        e_command_end, e_payload
    ) WITH ORDINALITY AS e (
        decision, aggregate_id, seq, type, version, org_id, project_id, app_id, env_id, node_id, actor_type, actor_id,
        reason, request_id, correlation_id, causation_id, traceparent, command_id, command_end, payload, n
    )
    WHERE e.decision <> ALL (settled);
    GET DIAGNOSTICS appended = ROW_COUNT;

    IF f_decision <> '{}' THEN
        WITH freed AS (
            DELETE FROM log.claims AS c
            USING unnest(f_decision, f_scope, f_aggregate_id) AS f (decision, scope, aggregate_id)
            WHERE c.scope = f.scope AND c.aggregate_id = f.aggregate_id AND f.decision <> ALL (settled)
            RETURNING c.scope, c.amount
        )
        SELECT array_agg(scope), array_agg(amount) INTO freed_scope, freed_amount FROM freed;
    END IF;
    IF t_decision <> '{}' THEN
        INSERT INTO log.claims (scope, key, aggregate_id, amount)
        SELECT t.scope, t.key, t.aggregate_id, t.amount
        FROM unnest(t_decision, t_scope, t_key, t_aggregate_id, t_amount, t_kept)
            AS t (decision, scope, key, aggregate_id, amount, kept)
        WHERE t.kept AND t.decision <> ALL (settled);
    END IF;
    IF f_decision <> '{}' OR t_decision <> '{}' THEN
        INSERT INTO log.claim_scopes AS s (scope, held, amount, version)
        SELECT c.scope, sum(c.held), sum(c.amount), 1
        FROM (
            SELECT t.scope, 1 AS held, t.amount
            FROM unnest(t_decision, t_scope, t_amount, t_kept) AS t (decision, scope, amount, kept)
            WHERE t.kept AND t.decision <> ALL (settled)
            UNION ALL
            SELECT f.scope, -1, -f.amount FROM unnest(freed_scope, freed_amount) AS f (scope, amount)
        ) AS c
        GROUP BY c.scope
        ON CONFLICT (scope) DO UPDATE
        SET held = s.held + excluded.held, amount = s.amount + excluded.amount, version = s.version + 1;
    END IF;

    IF v_decision <> '{}' THEN
        DELETE FROM vault.people AS p
        USING unnest(v_decision, v_person_id, v_email) AS v (decision, person_id, email)
        WHERE p.person_id = v.person_id AND v.email IS NULL AND v.decision <> ALL (settled);
        INSERT INTO vault.people AS p (person_id, email, name)
        SELECT v.person_id, v.email, v.name
        FROM unnest(v_decision, v_person_id, v_email, v_name) AS v (decision, person_id, email, name)
        WHERE v.email IS NOT NULL AND v.decision <> ALL (settled)
        ON CONFLICT (person_id) DO UPDATE SET email = excluded.email, name = excluded.name;
    END IF;

    INSERT INTO log.idempotency_keys (
        actor_type, actor_id, name, key, command_id, request_hash, first_position, position, answer, recorded_at
    )
    SELECT
        d.actor_type, d.actor_id, d.name, d.key, d.command_id, d.request_hash,
        CASE WHEN d.events > 0 THEN h.position + sum(d.events) OVER (ORDER BY d.n) - d.events + 1 END,
        CASE WHEN d.events > 0 THEN h.position + sum(d.events) OVER (ORDER BY d.n) ELSE h.position END,
        d.answer, began
    FROM unnest(d_actor_type, d_actor_id, d_name, d_key, d_command_id, d_request_hash, d_answer, d_events)
        WITH ORDINALITY AS d (actor_type, actor_id, name, key, command_id, request_hash, answer, events, n)
    WHERE d.n <> ALL (settled);

    IF appended > 0 THEN
        UPDATE log.head SET position = h.position + appended, recorded_at = began;
        PERFORM pg_notify('keelson_log', (h.position + appended)::text);
    END IF;
END
$$;

-- What each limited scope would hold after its decision: one row for each limit, in order. Arguments as of append_v1.
-- Locks: none; called under the head's.
CREATE FUNCTION log.held_afterwards_v1(
    l_decision integer[], l_scope text[],
    f_decision integer[], f_scope text[], f_aggregate_id text[],
    t_decision integer[], t_scope text[], t_amount bigint[], t_kept boolean[]
) RETURNS TABLE (decision integer, scope text, held numeric, amount numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.decision, l.scope,
        coalesce(s.held, 0) - coalesce(freed.held, 0) + coalesce(taken.held, 0),
        coalesce(s.amount, 0) - coalesce(freed.amount, 0) + coalesce(taken.amount, 0)
    FROM unnest(l_decision, l_scope) WITH ORDINALITY AS l (decision, scope, n)
    LEFT JOIN LATERAL (
        SELECT c.held, c.amount FROM log.claim_scopes AS c WHERE c.scope = l.scope LIMIT 1
    ) AS s ON true
    LEFT JOIN (
        SELECT f.decision, f.scope, count(*) AS held, sum(c.amount) AS amount
        FROM unnest(f_decision, f_scope, f_aggregate_id) AS f (decision, scope, aggregate_id)
        JOIN log.claims AS c ON c.scope = f.scope AND c.aggregate_id = f.aggregate_id
        GROUP BY f.decision, f.scope
    ) AS freed ON freed.decision = l.decision AND freed.scope = l.scope
    LEFT JOIN (
        SELECT t.decision, t.scope, count(*) AS held, sum(t.amount) AS amount
        FROM unnest(t_decision, t_scope, t_amount, t_kept) AS t (decision, scope, amount, kept)
        WHERE t.kept
        GROUP BY t.decision, t.scope
    ) AS taken ON taken.decision = l.decision AND taken.scope = l.scope
    ORDER BY l.n
$$;

-- Raises KE002 if two decisions of a group depend on one another: one writes what the other reads or writes, both take
-- one claim key or have one idempotency key, or one changes (c_) a scope that the other reads, limits or reads a key of
-- (s_). The group commit sees to it; this makes a mistake there an error instead of a broken promise.
-- Locks: none.
CREATE FUNCTION log.assert_independent_v1(
    d_actor_type text[], d_actor_id text[], d_name text[], d_key text[], r_decision integer[], r_aggregate_id text[],
    s_decision integer[], s_scope text[], c_decision integer[], c_scope text[], t_decision integer[], t_scope text[],
    t_key text[], e_decision integer[], e_aggregate_id text[]
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(d_key) > 1 AND (EXISTS (
        SELECT FROM unnest(d_actor_type, d_actor_id, d_name, d_key) AS d (actor_type, actor_id, name, key)
        GROUP BY d.actor_type, d.actor_id, d.name, d.key HAVING count(*) > 1
    ) OR EXISTS (
        SELECT FROM (
            SELECT r.decision, r.aggregate_id, false AS writes
            FROM unnest(r_decision, r_aggregate_id) AS r (decision, aggregate_id)
            UNION ALL
            SELECT e.decision, e.aggregate_id, true FROM unnest(e_decision, e_aggregate_id) AS e (decision, aggregate_id)
        ) AS a
        GROUP BY a.aggregate_id HAVING bool_or(a.writes) AND min(a.decision) <> max(a.decision)
    ) OR EXISTS (
        SELECT FROM unnest(t_decision, t_scope, t_key) AS t (decision, scope, key)
        GROUP BY t.scope, t.key HAVING min(t.decision) <> max(t.decision)
    ) OR EXISTS (
        SELECT FROM (
            SELECT s.decision, s.scope, false AS changes FROM unnest(s_decision, s_scope) AS s (decision, scope)
            UNION ALL
            SELECT c.decision, c.scope, true FROM unnest(c_decision, c_scope) AS c (decision, scope)
        ) AS s
        GROUP BY s.scope
        HAVING bool_or(s.changes) AND NOT bool_and(s.changes) AND min(s.decision) <> max(s.decision)
    )) THEN
        RAISE EXCEPTION 'decisions of one group depend on one another' USING ERRCODE = 'KE002';
    END IF;
END
$$;

-- Confirms, in one snapshot, what a decision that appends nothing depended on. Arguments as of append_v1, of one
-- decision; p_key may be null. Gives the head, whether anything moved, and what was answered under the key, if it was.
-- Locks: none that others wait for.
CREATE FUNCTION log.confirm_v1(
    p_actor_type text, p_actor_id text, p_name text, p_key text,
    r_aggregate_id text[], r_seq bigint[], s_scope text[], s_version bigint[], k_scope text[], k_key text[],
    k_holder text[]
) RETURNS TABLE (
    epoch text, "position" bigint, moved boolean, command_id text, request_hash bytea, first_position bigint,
    last_position bigint, answer text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.epoch, h.position,
        EXISTS (
            SELECT FROM unnest(r_aggregate_id, r_seq) AS r (aggregate_id, seq)
            WHERE r.seq <> coalesce((
                SELECT e.seq FROM log.events AS e WHERE e.aggregate_id = r.aggregate_id ORDER BY e.seq DESC LIMIT 1
            ), 0)
        ) OR EXISTS (
            SELECT FROM unnest(s_scope, s_version) AS s (scope, version)
            WHERE s.version <> coalesce((SELECT c.version FROM log.claim_scopes AS c WHERE c.scope = s.scope), 0)
        ) OR EXISTS (
            SELECT FROM unnest(k_scope, k_key, k_holder) AS k (scope, key, holder)
            WHERE k.holder IS DISTINCT FROM (
                SELECT c.aggregate_id FROM log.claims AS c WHERE c.scope = k.scope AND c.key = k.key
            )
        ),
        i.command_id, i.request_hash, i.first_position, i.position, i.answer
    FROM log.head AS h
    LEFT JOIN log.idempotency_keys AS i
        ON i.actor_type = p_actor_type AND i.actor_id = p_actor_id AND i.name = p_name AND i.key = p_key
$$;

REVOKE ALL ON FUNCTION log.append_v1, log.held_afterwards_v1, log.assert_independent_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.append_v1 TO keelson_command;

-- migrate: rollback
