-- Confirms what a decision without events depended on, in one snapshot; the function says the rest.
-- $1 … $4 text: who asked for what under which key (null: none); $5 … $11: arrays, in the function's order.
-- Locks: none that others wait for.
SELECT * FROM log.confirm_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
