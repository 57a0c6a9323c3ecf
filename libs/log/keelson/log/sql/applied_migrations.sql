-- Gives the names of the applied migrations.
-- Locks: none that others wait for.
SELECT migration_id FROM public._pogo_migration WHERE schema_name = 'log'
