"""The projector service: maintains the views."""
