-- Gives the aggregate that holds a claim key, if one does.
-- $1 text: the scope; $2 text: the key.
-- Locks: none that others wait for.
SELECT aggregate_id FROM log.claims WHERE scope = $1 AND key = $2
