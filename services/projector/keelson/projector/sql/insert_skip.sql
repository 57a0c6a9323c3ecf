-- Records that an operator lets a projection skip an event.
-- $1 text: the projection; $2 bigint: the event's position; $3 text, $4 text: the actor's type and id; $5 text: why.
-- Locks: the new row.
INSERT INTO ops.skips (projection, position, actor_type, actor_id, reason)
VALUES ($1, $2, $3, $4, $5)
