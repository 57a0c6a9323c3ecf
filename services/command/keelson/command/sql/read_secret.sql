-- Gives one version of a secret, sealed, and which key opens it.
-- $1 text: the secret; $2 integer: the version.
-- Locks: none that others wait for.
SELECT key_id, sealed FROM vault.secrets WHERE secret_id = $1 AND version = $2
