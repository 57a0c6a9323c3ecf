-- Appends one group of decisions; the function says the rest. Never inside a transaction: see there.
-- $1 text: the epoch; $2 … $58: arrays, in the function's order.
-- Locks: the head's row, until it commits.
SELECT * FROM log.append_v1(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
    $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
    $21, $22, $23, $24, $25, $26, $27, $28, $29, $30,
    $31, $32, $33, $34, $35, $36, $37, $38, $39, $40,
    $41, $42, $43, $44, $45, $46, $47, $48, $49, $50,
    $51, $52, $53, $54, $55, $56, $57, $58
)
