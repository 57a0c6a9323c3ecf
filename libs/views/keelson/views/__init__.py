"""Projections: declared tables and pure functions from event to row changes."""
