-- Lets bare names in this transaction mean what is in a schema.
-- $1 text: the schema.
-- Locks: none.
SELECT set_config('search_path', $1, true)
