-- Whether a database of this name exists.
-- $1 text: its name.
-- Locks: none.
SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)
