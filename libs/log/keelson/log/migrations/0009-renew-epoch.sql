-- an epoch begins by itself where the log is found in another lineage
-- depends: 0008-rewrap-secrets

-- migrate: apply

-- Gives the epoch of the log, and begins another first if the database is in another lineage than the head says: under
-- another system identifier (cause restored) or on another timeline alone (cause promoted; what a base backup was
-- recovered from ends in a promotion too, and cannot be told from one). It changes nothing otherwise, so whoever may
-- read the head may call it; of many at once one begins the epoch. The name is made here: who calls cannot choose one
-- that clients have known already.
-- p_found_by: who looked, for the event's reason. epoch: null where the log was never begun. standby: whether the server
-- is in recovery; it has no lineage of its own then, and the epoch is the one that it was sent last.
-- Locks: none that others wait for; the head's row, to the end of the transaction, if the lineage is another.
CREATE FUNCTION log.renew_epoch_v1(p_found_by text, OUT epoch text, OUT standby boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    h log.head;
    system_now CONSTANT text := (SELECT c.system_identifier::text FROM pg_control_system() AS c);
    timeline_now text;
    name text;
BEGIN
    SELECT * INTO h FROM log.head;
    epoch := h.epoch;
    standby := pg_is_in_recovery();
    IF standby OR epoch IS NULL THEN
        RETURN;
    END IF;
    -- The write-ahead log knows a promotion's timeline at once; the control file lags behind.
    timeline_now := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
    IF (h.system_identifier, h.timeline) = (system_now, timeline_now) THEN
        RETURN;
    END IF;

    SELECT * INTO STRICT h FROM log.head FOR UPDATE;
    epoch := h.epoch;
    IF (h.system_identifier, h.timeline) = (system_now, timeline_now) THEN
        RETURN;
    END IF;
    -- What is served in an epoch was durable before: whatever the session says, to the end of this transaction.
    PERFORM set_config('synchronous_commit', 'on', true);
    name := substr(md5(gen_random_uuid()::text), 1, 16);
    PERFORM log.begin_epoch_v1(
        name,
        CASE WHEN h.system_identifier = system_now THEN 'promoted' ELSE 'restored' END,
        'system',
        'lineage',
        CASE
            WHEN h.system_identifier = system_now THEN
                format('timeline %s became %s, found by %s', h.timeline, timeline_now, left(p_found_by, 100))
            ELSE
                format('system %s became %s, found by %s', h.system_identifier, system_now, left(p_found_by, 100))
        END,
        'epoch_' || name
    );
    epoch := name;
END
$$;

REVOKE ALL ON FUNCTION log.renew_epoch_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.renew_epoch_v1 TO keelson_command, keelson_projector, keelson_query;

-- migrate: rollback
