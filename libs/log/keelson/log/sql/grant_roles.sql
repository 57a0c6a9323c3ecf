-- Gives the statement that makes the log's owner a member of the projector's role.
-- $1 text: the owner.
-- Locks: none.
SELECT format('GRANT keelson_projector TO %I', $1::text)
