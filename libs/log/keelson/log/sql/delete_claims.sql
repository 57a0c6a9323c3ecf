-- Removes claims that are not what the log says, to be followed by the right ones in the same transaction.
-- $1 text[]: their scopes; $2 text[]: their keys.
-- Locks: the claims' rows; the head's is held before.
DELETE FROM log.claims AS c
USING unnest($1::text[], $2::text[]) AS d (scope, key)
WHERE c.scope = d.scope AND c.key = d.key
