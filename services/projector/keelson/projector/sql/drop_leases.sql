-- Gives leases back, so that another may take them at once.
-- $1 text[]: the names; $2 text: the holder.
-- Locks: the leases' rows, for this statement.
DELETE FROM ops.leases WHERE name = ANY ($1::text[]) AND holder = $2
