"""Typed asynchronous client of the command and query APIs."""
