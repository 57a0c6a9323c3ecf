"""The command service: validates commands, appends events."""
