-- Gives what a claim scope holds, and its version.
-- $1 text: the scope.
-- Locks: none that others wait for.
SELECT held, amount, version FROM log.claim_scopes WHERE scope = $1
