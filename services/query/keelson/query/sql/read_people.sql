-- Give the e-mails and names of people; who was erased has no row.
-- Parameters: $1 their ids (text[]). Takes no locks beyond reading.
SELECT person_id, email, name FROM vault.people WHERE person_id = ANY ($1::text[])
