-- Sets a session's settings, and gives the log's epoch, which begins first if the lineage is another; the function says
-- the rest. Its argument depends on the settings, so that they come first: what it does must outlast them.
-- $1 text[]: settings; $2 text[]: their values; $3 text: who looks.
-- Locks: none that others wait for; the head's row, for this statement, if the lineage is another.
SELECT renewed.epoch, renewed.standby
FROM (
    SELECT count(set_config(setting.name, setting.value, false)) AS settings
    FROM unnest($1::text[], $2::text[]) AS setting (name, value)
) AS session
CROSS JOIN LATERAL log.renew_epoch_v1(CASE WHEN session.settings >= 0 THEN $3::text END) AS renewed
