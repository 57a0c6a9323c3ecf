-- Give when credentials were used last, to about a minute; one that was never used has no row.
-- Parameters: $1 their ids (text[]). Takes no locks beyond reading.
SELECT credential_id, used_at FROM ops.last_uses WHERE credential_id = ANY ($1::text[])
