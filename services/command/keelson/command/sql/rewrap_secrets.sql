-- Replaces sealed versions of secrets by the same under another key; the function says the rest.
-- $1 text[]: secrets; $2 integer[]: versions; $3 text[]: the keys that they were read under; $4 text[]: the new keys;
-- $5 bytea[]: the new bytes.
-- Locks: the replaced rows, for this statement.
SELECT ops.rewrap_secrets_v1($1, $2, $3, $4, $5)
