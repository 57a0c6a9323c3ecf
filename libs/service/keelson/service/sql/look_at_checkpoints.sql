-- Every projection's checkpoint beside the log's epoch; one row with nulls when there is no projection yet.
-- Parameters: none.
-- Locks: none that others wait for.
SELECT head.epoch, checkpoints.projection, checkpoints.position, checkpoints.state
FROM log.head AS head
LEFT JOIN ops.checkpoints AS checkpoints ON true
