-- Gives the person who has an e-mail, in whichever case.
-- $1 text: the e-mail.
-- Locks: none that others wait for.
SELECT person_id FROM vault.people WHERE lower(email) = lower($1)
