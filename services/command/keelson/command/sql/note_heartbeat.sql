-- Notes that a node was heard now, by this database's clock.
-- $1 text: the node; $2 bigint: how far it has seen the log; $3 json: its load, or null.
-- Locks: the node's row, for this statement.
SELECT ops.note_heartbeat_v1($1, $2, $3)
