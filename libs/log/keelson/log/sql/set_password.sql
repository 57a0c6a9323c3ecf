-- Gives the statement that lets a role log in with a password (a utility statement takes no parameters).
-- $1 text: the role; $2 text: the password.
-- Locks: none.
SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)
