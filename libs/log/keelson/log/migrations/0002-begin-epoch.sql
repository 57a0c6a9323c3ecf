-- begin an epoch: the head and the event that says so
-- depends: 0001-schemas

-- migrate: apply

-- Begins an epoch of the log, as an event of the platform; the first one makes the head.
-- p_epoch: [0-9a-z]{1,26}, new; p_cause: created, operator, restored or promoted; the rest goes to the envelope.
-- Returns the event's position. Locks: the head's row, to the end of the transaction.
CREATE FUNCTION log.begin_epoch_v1(
    p_epoch text, p_cause text, p_actor_type text, p_actor_id text, p_reason text, p_request_id text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    platform CONSTANT text := 'platform_00000000000000000000000000';
    h log.head;
    began timestamptz;
BEGIN
    INSERT INTO log.head (epoch, position, recorded_at, system_identifier, timeline)
    VALUES (p_epoch, 0, '-infinity', '', '') ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT h FROM log.head FOR UPDATE;
    began := greatest(h.recorded_at, clock_timestamp());
    INSERT INTO log.events (
        position, aggregate_id, seq, type, version, actor_type, actor_id, reason, request_id, command_id, command_end,
        recorded_at, payload
    )
    SELECT
        h.position + 1,
        platform,
        coalesce((SELECT max(seq) FROM log.events WHERE aggregate_id = platform), 0) + 1,
        'platform.epoch_began', 1, p_actor_type, p_actor_id, p_reason, p_request_id, 'epoch_' || p_epoch, true,
        began,
        json_build_object(
            'epoch', p_epoch,
            'previous', CASE WHEN h.position > 0 THEN h.epoch END,
            'forked_at', nullif(h.position, 0),
            'cause', p_cause
        );
    UPDATE log.head SET
        epoch = p_epoch,
        position = h.position + 1,
        recorded_at = began,
        system_identifier = (SELECT c.system_identifier::text FROM pg_control_system() AS c),
        -- The write-ahead log knows a promotion's timeline at once; the control file lags behind.
        timeline = substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
    PERFORM pg_notify('keelson_log', (h.position + 1)::text);
    RETURN h.position + 1;
END
$$;

REVOKE ALL ON FUNCTION log.begin_epoch_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.begin_epoch_v1 TO keelson_command;

-- migrate: rollback
