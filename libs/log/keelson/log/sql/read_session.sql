-- Names the server session that runs this.
-- Locks: none.
SELECT pg_backend_pid()
