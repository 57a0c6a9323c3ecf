"""Desired state: what a node should be running, and where edges should lead hostnames (ADR 0012).

`snapshots` reads it and says it, once for all who want the same.
"""
