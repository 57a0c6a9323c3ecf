-- Say whether a token is a credential of whomever.
-- $1 bytea: its hash. Takes no locks beyond reading.
SELECT EXISTS (SELECT FROM vault.credentials WHERE hash = $1)
