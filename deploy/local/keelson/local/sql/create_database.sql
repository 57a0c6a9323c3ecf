-- Gives the statement that creates a database; it runs by itself, never in a transaction.
-- $1 text: its name. $2 text: its owner. $3 text: the database that it is a copy of; nobody may be connected to that.
-- Locks: none; the statement that it gives locks the copied database against connections.
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE %I', $1::text, $2::text, $3::text)
