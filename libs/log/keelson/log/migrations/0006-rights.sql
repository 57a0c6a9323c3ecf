-- rights that no service needs are taken back
-- depends: 0005-prune-keys

-- migrate: apply

-- command waits for checkpoints, and asks for no lease and no skip; nobody takes a checkpoint away.
REVOKE SELECT ON ops.leases, ops.skips FROM keelson_command;
REVOKE DELETE ON ops.checkpoints FROM keelson_projector;

-- A function is anybody's until that is taken back: from those that are there, and from those to come.
REVOKE ALL ON FUNCTION log.confirm_v1, log.position_at_v1, log.read_filtered_v1, log.refuse_change FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.confirm_v1 TO keelson_command;
GRANT EXECUTE ON FUNCTION log.position_at_v1, log.read_filtered_v1 TO keelson_query;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Nothing of ours makes temporary tables. A copy of the database (a restored dump, a template) has its own rights, and
-- lets everybody again; if this role does not own the database, PostgreSQL warns and goes on.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

-- migrate: rollback
