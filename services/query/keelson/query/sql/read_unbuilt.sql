-- Gives which of the tables and derived views are not in schema views.
-- $1 text[]: their names.
-- Locks: none that others wait for.
SELECT name FROM unnest($1::text[]) AS asked (name) WHERE to_regclass('views.' || name) IS NULL
