-- Gives the views and tables of a schema that a projection made, under whatever version of its code: their comment says
-- so. Views come first: what depends on another comes before it.
-- $1 text: the schema; $2 text: the comment.
-- Locks: none that others wait for.
SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, format('%I.%I', $1::text, relname)
FROM pg_catalog.pg_class
WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)
    AND relkind IN ('r', 'v')
    AND obj_description(oid, 'pg_class') = $2
ORDER BY relkind DESC, relname
