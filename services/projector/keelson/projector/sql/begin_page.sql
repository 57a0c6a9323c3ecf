-- Lets this transaction commit without waiting for the disk: what a rebuild loses in a crash it makes again.
-- Parameters: none.
-- Locks: none.
SELECT set_config('synchronous_commit', 'off', true)
