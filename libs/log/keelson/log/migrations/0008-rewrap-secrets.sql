-- the exchange of the master keys of secrets: what wraps a version's data key is replaced, its values stay
-- depends: 0007-vault

-- migrate: apply

-- Replaces sealed versions of secrets by the same under other keys; returns how many it replaced. One that is under
-- another key by now than p_from_key_ids says, that is erased, or whose row somebody holds just now, is left alone: so
-- it waits for nobody while it holds rows, and may run beside itself, appends, and erasures.
-- Arrays of one length: secrets, versions, the keys that they were read under, the new keys, the new bytes.
-- Locks: the replaced rows, to the end of the transaction.
CREATE FUNCTION ops.rewrap_secrets_v1(
    p_secret_ids text[], p_versions integer[], p_from_key_ids text[], p_key_ids text[], p_sealed bytea[]
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    replaced integer;
BEGIN
    WITH free AS MATERIALIZED (
        SELECT s.secret_id, s.version, n.key_id, n.sealed
        FROM unnest(p_secret_ids, p_versions, p_from_key_ids, p_key_ids, p_sealed)
            AS n (secret_id, version, from_key_id, key_id, sealed)
        JOIN vault.secrets AS s ON s.secret_id = n.secret_id AND s.version = n.version AND s.key_id = n.from_key_id
        FOR UPDATE OF s SKIP LOCKED
    )
    UPDATE vault.secrets AS s SET key_id = free.key_id, sealed = free.sealed
    FROM free
    WHERE s.secret_id = free.secret_id AND s.version = free.version;
    GET DIAGNOSTICS replaced = ROW_COUNT;
    RETURN replaced;
END
$$;

REVOKE ALL ON FUNCTION ops.rewrap_secrets_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.rewrap_secrets_v1 TO keelson_command;

-- migrate: rollback
