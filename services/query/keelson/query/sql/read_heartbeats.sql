-- Gives when nodes were heard last; one that never was has no row.
-- $1 text[]: their ids.
-- Locks: none that others wait for.
SELECT node_id, heartbeat_at FROM ops.heartbeats WHERE node_id = ANY ($1::text[])
