"""The event log in PostgreSQL: the one write path, the ways to read it, and the tail that is woken by it."""
