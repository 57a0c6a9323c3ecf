-- Gives by which rules the claims were made; no row if they were before rules had a number.
-- Locks: none that others wait for.
SELECT version FROM log.claims_version
