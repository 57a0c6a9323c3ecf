-- Tells whether any migration was ever applied: the table is pogo's.
-- Locks: none.
SELECT to_regclass('public._pogo_migration') IS NOT NULL
