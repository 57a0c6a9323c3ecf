-- Adds the claims that a rebuild found missing, or wrong.
-- $1 text[]: their scopes; $2 text[]: their keys; $3 text[]: their holders; $4 bigint[]: their amounts.
-- Locks: the new rows; the head's is held before.
INSERT INTO log.claims (scope, key, aggregate_id, amount)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
