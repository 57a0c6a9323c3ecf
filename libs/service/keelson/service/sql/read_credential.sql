-- Gives a credential by the hash of its token, how far its holder is (null: there is no such aggregate), and the epoch.
-- $1 bytea: SHA-256 of the token.
-- Locks: none that others wait for.
SELECT
    c.credential_id, c.kind, c.holder_id, c.actor_id,
    (SELECT e.seq FROM log.events AS e WHERE e.aggregate_id = c.holder_id ORDER BY e.seq DESC LIMIT 1) AS seq,
    (SELECT h.epoch FROM log.head AS h) AS epoch
FROM vault.credentials AS c
WHERE c.hash = $1
