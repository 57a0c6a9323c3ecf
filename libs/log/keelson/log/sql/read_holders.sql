-- Gives the aggregates that hold keys in a claim scope, each once.
-- $1 text: the scope.
-- Locks: none that others wait for.
SELECT DISTINCT aggregate_id FROM log.claims WHERE scope = $1 ORDER BY aggregate_id
