-- The log's owner, if it is missing: it can log in once it is given a password, and is nobody's superuser.
-- Run by a superuser. Roles belong to the cluster, not to one database.
-- Locks: none that others wait for.
DO $$
BEGIN
    CREATE ROLE keelson LOGIN;
EXCEPTION WHEN duplicate_object THEN
    NULL;
END
$$;
