-- Counts the keys that some aggregates hold in a claim scope.
-- $1 text: the scope; $2 text[]: the aggregates.
-- Locks: none that others wait for.
SELECT count(*) FROM log.claims WHERE scope = $1 AND aggregate_id = ANY ($2)
