-- the log and what stands beside it: tables, rights, immutability
-- depends:

-- migrate: apply

-- The roles keelson_command, keelson_projector and keelson_query exist already (see roles.sql): they belong to the
-- cluster, not to this database. Whoever runs this is the log's owner, and is refused edits of events like anybody.

CREATE SCHEMA log;
CREATE SCHEMA vault;
CREATE SCHEMA ops;
CREATE SCHEMA views AUTHORIZATION keelson_projector;
-- Where a rebuild makes its tables; the swap moves them into views.
CREATE SCHEMA views_next AUTHORIZATION keelson_projector;

-- The log. Ids are ASCII, compared byte by byte.
CREATE TABLE log.events (
    position bigint PRIMARY KEY,
    aggregate_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL CHECK (seq > 0),
    type text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    org_id text COLLATE "C",
    project_id text COLLATE "C",
    app_id text COLLATE "C",
    env_id text COLLATE "C",
    node_id text COLLATE "C",
    actor_type text COLLATE "C" NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    reason text,
    request_id text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C",
    causation_id bigint,
    traceparent text COLLATE "C",
    command_id text COLLATE "C" NOT NULL,
    command_end boolean NOT NULL,
    recorded_at timestamptz NOT NULL,
    payload json NOT NULL,
    UNIQUE (aggregate_id, seq)
);

CREATE INDEX events_org ON log.events (org_id, position) WHERE org_id IS NOT NULL;
CREATE INDEX events_env ON log.events (env_id, position) WHERE env_id IS NOT NULL;

-- One row: the lock under which positions are given out, and the lineage that they belong to.
CREATE TABLE log.head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch text COLLATE "C" NOT NULL CHECK (epoch ~ '^[0-9a-z]{1,26}$'),
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    system_identifier text NOT NULL,
    timeline text NOT NULL
) WITH (fillfactor = 50);

-- What makes an invariant across aggregates checkable at append.
CREATE TABLE log.claims (
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE INDEX claims_by_holder ON log.claims (aggregate_id, scope);

-- What a scope holds; its version is one higher at each change, so that having read it can be checked.
CREATE TABLE log.claim_scopes (
    scope text COLLATE "C" PRIMARY KEY,
    held bigint NOT NULL,
    amount bigint NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 70);

-- What was answered under an idempotency key. The scope is who asked and for which command (or the bundle).
CREATE TABLE log.idempotency_keys (
    actor_type text COLLATE "C" NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    command_id text COLLATE "C" NOT NULL,
    request_hash bytea NOT NULL,
    first_position bigint,
    position bigint NOT NULL,
    answer text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (actor_type, actor_id, name, key)
);

-- What must be erasable: written with the event that says that it changed, never part of an event.
CREATE TABLE vault.people (
    person_id text COLLATE "C" PRIMARY KEY,
    email text NOT NULL,
    name text
);

-- How far each projection is, and whether it goes on.
CREATE TABLE ops.checkpoints (
    projection text COLLATE "C" PRIMARY KEY,
    version integer NOT NULL,
    position bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'stopped', 'behind_schema')),
    error_position bigint,
    error_type text,
    error_message text,
    rate double precision NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Who runs a projection (or its rebuild, named rebuild:<projection>) until when, by this database's clock.
CREATE TABLE ops.leases (
    name text COLLATE "C" PRIMARY KEY,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Events that an operator let a projection skip, and why.
CREATE TABLE ops.skips (
    projection text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    actor_type text NOT NULL,
    actor_id text NOT NULL,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, position)
);

-- Immutability, for whoever has the right to try: the owner above all.
CREATE FUNCTION log.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'log.events is append-only: % refused', TG_OP USING ERRCODE = 'KE004';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log.events
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- Rights. command writes by functions alone; query only reads; projector owns the views and writes its own ops rows.
GRANT USAGE ON SCHEMA log, ops TO keelson_command, keelson_projector, keelson_query;
GRANT USAGE ON SCHEMA vault TO keelson_command, keelson_query;
GRANT USAGE ON SCHEMA views TO keelson_query;
GRANT SELECT ON log.events, log.head TO keelson_command, keelson_projector, keelson_query;
GRANT SELECT ON log.claims, log.claim_scopes, log.idempotency_keys TO keelson_command;
GRANT SELECT ON vault.people TO keelson_command, keelson_query;
GRANT SELECT ON ops.checkpoints, ops.leases, ops.skips TO keelson_command, keelson_query;
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.checkpoints, ops.leases TO keelson_projector;
GRANT SELECT, INSERT ON ops.skips TO keelson_projector;
GRANT SELECT ON public._pogo_migration TO keelson_command, keelson_projector, keelson_query;
ALTER DEFAULT PRIVILEGES FOR ROLE keelson_projector IN SCHEMA views GRANT SELECT ON TABLES TO keelson_query;
ALTER DEFAULT PRIVILEGES FOR ROLE keelson_projector IN SCHEMA views_next GRANT SELECT ON TABLES TO keelson_query;

-- migrate: rollback
