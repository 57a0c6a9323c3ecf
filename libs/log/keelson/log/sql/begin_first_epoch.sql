-- Begins the first epoch, unless the log has one.
-- $1 text: the epoch's name, [0-9a-z]{1,26}.
-- Locks: the head's row, if it begins.
SELECT log.begin_epoch_v1($1, 'created', 'system', 'migration', 'the log was created', 'migration')
WHERE NOT EXISTS (SELECT FROM log.head)
