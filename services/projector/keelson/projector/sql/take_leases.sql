-- Takes or renews leases; gives the names of those that the holder now has. Others are held by somebody else.
-- One that lasts longer than any that is given now is of a clock that has been put back since (F11): it is free, or that
-- of a holder which died would be nobody's for as long as the clock went back.
-- $1 text[]: the names; $2 text: the holder; $3 double precision: for how many seconds from now, by this clock.
-- Locks: the leases' rows, in the order of their names, for this statement.
INSERT INTO ops.leases AS held (name, holder, expires_at)
SELECT asked.name, $2, clock_timestamp() + make_interval(secs => $3)
FROM unnest($1::text[]) AS asked (name)
ORDER BY asked.name
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE held.holder = excluded.holder OR held.expires_at <= clock_timestamp()
    OR held.expires_at > clock_timestamp() + make_interval(secs => $3)
RETURNING held.name
