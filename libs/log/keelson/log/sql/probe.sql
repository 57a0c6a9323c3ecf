-- Asks for a sign of life.
-- Locks: none.
SELECT 1
