-- Begins another epoch if the lineage is another than the head says; the function says the rest.
-- $1 text: who looks.
-- Locks: none that others wait for; the head's row, to the end of the transaction, if the lineage is another.
SELECT log.renew_epoch_v1($1)
