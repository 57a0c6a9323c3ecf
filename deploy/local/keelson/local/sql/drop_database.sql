-- Gives the statement that drops a database if it exists, and ends whoever is connected to it.
-- $1 text: its name.
-- Locks: none.
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', $1::text)
