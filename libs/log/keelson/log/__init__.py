"""The event log in PostgreSQL: append, read, tail, migrations."""
