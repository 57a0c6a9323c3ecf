-- Gives matching events; the function says the rest.
-- $1 bigint: the cursor; $2 bigint: how many matches; $3 bigint: how much may be examined; $4 boolean: newest first;
-- $5 … $15 text: org, project, app, env, node, aggregate type, aggregate, event type, actor, request, correlation; null
-- matches everything.
-- Locks: none that others wait for.
SELECT * FROM log.read_filtered_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
