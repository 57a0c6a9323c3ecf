-- Gives every claim.
-- Locks: none that others wait for.
SELECT scope, key, aggregate_id, amount FROM log.claims
