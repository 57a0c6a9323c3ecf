"""One machine: embedded PostgreSQL, the supervisor of make run, the demo."""
