-- Says whether a session waits for a row's lock at this moment. Of a writer's that is the head's: it takes no other before.
-- $1 integer: the session, of a role that the one who asks is a member of.
-- Locks: none.
SELECT wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple') FROM pg_stat_activity WHERE pid = $1
