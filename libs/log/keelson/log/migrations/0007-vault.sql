-- credentials, secrets and whom an e-mail names, written by the append with the events that say so; uses and heartbeats
-- depends: 0006-rights

-- migrate: apply

-- Who may ask, by the hash of a token that was shown once. Whether it still holds is what the holder's events say.
CREATE TABLE vault.credentials (
    credential_id text COLLATE "C" PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('member', 'principal', 'node', 'enrollment')),
    holder_id text COLLATE "C" NOT NULL,
    actor_id text COLLATE "C" NOT NULL
);

-- Each version of a secret's values, encrypted under a key that only command has.
CREATE TABLE vault.secrets (
    secret_id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    key_id text COLLATE "C" NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (secret_id, version)
);

-- An e-mail, in whichever case, is one person's.
CREATE UNIQUE INDEX people_email ON vault.people (lower(email));

-- When a credential was used last, about.
CREATE TABLE ops.last_uses (
    credential_id text COLLATE "C" PRIMARY KEY,
    used_at timestamptz NOT NULL
) WITH (fillfactor = 70);

-- When a node was heard last, how much of its desired state it had seen by then, and its load as it says it.
CREATE TABLE ops.heartbeats (
    node_id text COLLATE "C" PRIMARY KEY,
    observed_position bigint NOT NULL,
    load json,
    heartbeat_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- One row: by which rules of events the claims were made; who knows newer ones makes them anew (keelson.log.claims).
CREATE TABLE log.claims_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL
);

GRANT SELECT ON vault.credentials TO keelson_command, keelson_query;
GRANT SELECT ON vault.secrets TO keelson_command;
GRANT SELECT ON ops.last_uses, ops.heartbeats TO keelson_command, keelson_query;

-- append_v1 for decisions that write more of the vault; it stays for replicas of before, which do not.
--
-- Arguments as of append_v1, and: q_ whom an e-mail named when the decision was made (null: nobody), c_ credentials (a
-- null hash removes one), x_ versions of secrets (a null version erases all that there are before the decision's own).
-- E-mails are compared in lower case. A decision is 'moved' too when an e-mail that it looked up is another's by now,
-- or one that it keeps is already another's. KE002 also when two decisions of the group touch one e-mail or person.
-- Locks: the head's row, from its first statement to the commit.
CREATE FUNCTION log.append_v2(
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
    v_decision integer[], v_person_id text[], v_email text[], v_name text[],
    q_decision integer[], q_email text[], q_person_id text[],
    c_decision integer[], c_credential_id text[], c_hash bytea[], c_kind text[], c_holder_id text[], c_actor_id text[],
    x_decision integer[], x_secret_id text[], x_version integer[], x_key_id text[], x_sealed bytea[]
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

    -- People: whoever was looked up by an e-mail must still have it, and an e-mail that is kept must be nobody else's,
    -- but for one whom the same decision erases.
    IF v_decision <> '{}' OR q_decision <> '{}' THEN
        PERFORM log.assert_people_independent_v1(
            v_decision, v_person_id, v_email, q_decision, q_email, q_person_id
        );
        failed := ARRAY(
            SELECT q.decision FROM unnest(q_decision, q_email, q_person_id) AS q (decision, email, person_id)
            WHERE q.decision <> ALL (settled) AND q.person_id IS DISTINCT FROM (
                SELECT p.person_id FROM vault.people AS p WHERE lower(p.email) = lower(q.email)
            )
            UNION
            SELECT v.decision FROM unnest(v_decision, v_person_id, v_email) AS v (decision, person_id, email)
            WHERE v.decision <> ALL (settled) AND EXISTS (
                SELECT FROM vault.people AS p
                WHERE lower(p.email) = lower(v.email) AND p.person_id <> v.person_id AND NOT EXISTS (
                    SELECT FROM unnest(v_decision, v_person_id, v_email) AS e (decision, person_id, email)
                    WHERE e.decision = v.decision AND e.person_id = p.person_id AND e.email IS NULL
                )
            )
        );
        IF failed <> '{}' THEN
            RETURN QUERY SELECT n, 'moved', NULL::bigint, h.position, NULL::text, NULL::text FROM unnest(failed) AS n;
            settled := settled || failed;
        END IF;
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

    IF c_decision <> '{}' THEN
        DELETE FROM vault.credentials AS k
        USING unnest(c_decision, c_credential_id, c_hash) AS c (decision, credential_id, hash)
        WHERE k.credential_id = c.credential_id AND c.hash IS NULL AND c.decision <> ALL (settled);
        INSERT INTO vault.credentials (credential_id, hash, kind, holder_id, actor_id)
        SELECT c.credential_id, c.hash, c.kind, c.holder_id, c.actor_id
        FROM unnest(c_decision, c_credential_id, c_hash, c_kind, c_holder_id, c_actor_id)
            AS c (decision, credential_id, hash, kind, holder_id, actor_id)
        WHERE c.hash IS NOT NULL AND c.decision <> ALL (settled);
    END IF;
    IF x_decision <> '{}' THEN
        DELETE FROM vault.secrets AS s
        USING unnest(x_decision, x_secret_id, x_version) AS x (decision, secret_id, version)
        WHERE s.secret_id = x.secret_id AND x.version IS NULL AND x.decision <> ALL (settled);
        INSERT INTO vault.secrets (secret_id, version, key_id, sealed)
        SELECT x.secret_id, x.version, x.key_id, x.sealed
        FROM unnest(x_decision, x_secret_id, x_version, x_key_id, x_sealed)
            AS x (decision, secret_id, version, key_id, sealed)
        WHERE x.version IS NOT NULL AND x.decision <> ALL (settled);
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

-- Raises KE002 if two decisions of a group touch one person, or one e-mail. Arguments as of append_v2.
-- Locks: none.
CREATE FUNCTION log.assert_people_independent_v1(
    v_decision integer[], v_person_id text[], v_email text[], q_decision integer[], q_email text[], q_person_id text[]
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (
            SELECT v.decision, v.person_id, lower(v.email) AS email
            FROM unnest(v_decision, v_person_id, v_email) AS v (decision, person_id, email)
            UNION ALL
            SELECT q.decision, q.person_id, lower(q.email)
            FROM unnest(q_decision, q_email, q_person_id) AS q (decision, email, person_id)
        ) AS t
        CROSS JOIN LATERAL (VALUES ('person', t.person_id), ('email', t.email)) AS n (kind, name)
        WHERE n.name IS NOT NULL
        GROUP BY n.kind, n.name HAVING min(t.decision) <> max(t.decision)
    ) THEN
        RAISE EXCEPTION 'decisions of one group depend on one another' USING ERRCODE = 'KE002';
    END IF;
END
$$;

-- Notes when credentials were used, about: of one credential the greatest time is kept.
-- p_credential_ids and p_used_at have one length; a credential may be in them several times.
-- Locks: the credentials' rows, in the order of their ids, to the end of the transaction.
CREATE FUNCTION ops.note_uses_v1(p_credential_ids text[], p_used_at timestamptz[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ops.last_uses AS u (credential_id, used_at)
    SELECT n.credential_id, max(n.used_at)
    FROM unnest(p_credential_ids, p_used_at) AS n (credential_id, used_at)
    GROUP BY n.credential_id
    ORDER BY n.credential_id
    ON CONFLICT (credential_id) DO UPDATE SET used_at = excluded.used_at WHERE u.used_at < excluded.used_at
$$;

-- Notes that a node was heard now, by this database's clock.
-- p_observed_position: how far it had seen the log; p_load may be null.
-- Locks: the node's row, to the end of the transaction.
CREATE FUNCTION ops.note_heartbeat_v1(p_node_id text, p_observed_position bigint, p_load json) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ops.heartbeats (node_id, observed_position, load, heartbeat_at)
    VALUES (p_node_id, p_observed_position, p_load, clock_timestamp())
    ON CONFLICT (node_id) DO UPDATE
    SET observed_position = excluded.observed_position, load = excluded.load, heartbeat_at = excluded.heartbeat_at
$$;

REVOKE ALL ON FUNCTION log.append_v2, log.assert_people_independent_v1, ops.note_uses_v1, ops.note_heartbeat_v1
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.append_v2, ops.note_heartbeat_v1 TO keelson_command;
GRANT EXECUTE ON FUNCTION ops.note_uses_v1 TO keelson_command, keelson_query;

-- migrate: rollback
