-- read_checkpoints: how far the projection that is behind all others has come, and the log's head.
-- Locks: none.
SELECT
    (SELECT coalesce(min(c.position), 0) FROM ops.checkpoints AS c) AS checkpoint,
    (SELECT count(*) FROM ops.checkpoints) AS projections,
    (SELECT h.position FROM log.head AS h) AS head
