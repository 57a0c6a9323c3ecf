-- Gives versions of secrets that are not under a key, in order.
-- $1 text: the key; $2 text, $3 integer: secret and version that were read last; $4 integer: how many.
-- Locks: none that others wait for.
SELECT secret_id, version, key_id, sealed
FROM vault.secrets
WHERE key_id <> $1 AND (secret_id, version) > ($2, $3)
ORDER BY secret_id, version
LIMIT $4
