-- Counts the live tables of these names that were live in this transaction's snapshot too. A rebuild that swapped them
-- after the snapshot was taken makes their rows invisible to it; then the count is smaller.
-- $1 text[]: the names.
-- Locks: none that others wait for.
SELECT count(*)
FROM pg_catalog.pg_class
WHERE relnamespace = 'views'::regnamespace
    AND relname = ANY ($1::text[])
    AND oid = to_regclass(format('views.%I', relname))
