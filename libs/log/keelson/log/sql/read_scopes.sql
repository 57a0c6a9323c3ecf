-- Gives what every claim scope holds.
-- Locks: none that others wait for.
SELECT scope, held, amount FROM log.claim_scopes
