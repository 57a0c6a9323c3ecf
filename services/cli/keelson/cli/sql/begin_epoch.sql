-- Begins another epoch of the log, as the operator; gives the position of the event that says so.
-- $1 text: the new epoch's name, [0-9a-z]{1,26}; $2 text: the reason; $3 text: the request id.
-- Locks: the head's row, for this statement.
SELECT log.begin_epoch_v1($1, 'operator', 'system', 'operator', $2, $3)
