-- The three service roles, if they are missing: they can log in once they are given passwords, and own nothing here.
-- Run by whoever may create roles (a superuser, or CREATEROLE). Roles belong to the cluster; two runs at once may
-- collide on pg_authid, which is as good as done.
-- Locks: none that others wait for.
DO $$
DECLARE
    each text;
BEGIN
    FOREACH each IN ARRAY ARRAY['keelson_command', 'keelson_projector', 'keelson_query'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN', each);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;
