-- Counts the versions of secrets under each key.
-- Locks: none that others wait for.
SELECT key_id, count(*) FROM vault.secrets GROUP BY key_id ORDER BY key_id
