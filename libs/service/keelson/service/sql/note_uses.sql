-- Writes down when credentials were last used; an earlier use than the one that is known changes nothing.
-- $1 text[]: ids of credentials; $2 timestamptz[]: when.
-- Locks: the rows of these credentials.
SELECT ops.note_uses_v1($1, $2)
