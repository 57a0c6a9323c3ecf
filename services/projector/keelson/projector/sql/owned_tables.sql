-- Gives the tables of a schema that a projection made, under whatever version of its code: their comment says so.
-- $1 text: the schema; $2 text: the comment.
-- Locks: none that others wait for.
SELECT format('%I.%I', $1::text, relname)
FROM pg_catalog.pg_class
WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)
    AND relkind = 'r'
    AND obj_description(oid, 'pg_class') = $2
ORDER BY relname
