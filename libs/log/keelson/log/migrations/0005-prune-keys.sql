-- the pruning of idempotency keys: they are kept for a while, not for ever
-- depends: 0004-append

-- migrate: apply

-- Deletes at most p_limit answers that were kept under idempotency keys before p_before; returns how many it deleted.
-- A retry after that is a new request, so nothing younger than seven days may go: KE005.
-- Keys were added in the order of time, so the scan ends soon where there is something to delete.
-- Locks: the deleted rows, to the end of the transaction; appends do not wait for them.
CREATE FUNCTION log.prune_keys_v1(p_before timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted integer;
BEGIN
    IF p_before > clock_timestamp() - interval '7 days' THEN
        RAISE EXCEPTION 'idempotency keys are kept for at least 7 days' USING ERRCODE = 'KE005';
    END IF;
    DELETE FROM log.idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT k.ctid FROM log.idempotency_keys AS k WHERE k.recorded_at < p_before LIMIT p_limit
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

REVOKE ALL ON FUNCTION log.prune_keys_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.prune_keys_v1 TO keelson_command;

-- migrate: rollback
