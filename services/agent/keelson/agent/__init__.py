"""The node agent: runs what its node should be running, and says how that is."""
