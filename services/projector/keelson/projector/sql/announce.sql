-- Announces checkpoints, one notification each.
-- $1 text[]: '<projection> <position>'.
-- Locks: the queue of notifications, while the transaction commits; appends wait for it too.
SELECT pg_notify('keelson_checkpoint', each) FROM unnest($1::text[]) AS each
