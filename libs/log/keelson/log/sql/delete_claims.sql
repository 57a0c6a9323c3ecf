-- Removes every claim, to be followed by the right ones in the same transaction.
-- Locks: every claim's row; the head's is held before.
DELETE FROM log.claims
