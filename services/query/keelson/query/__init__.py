"""The query service: reads from views, audit from the log."""
