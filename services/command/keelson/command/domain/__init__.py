"""The rules: per aggregate its folded state, its commands, and the handlers that decide on them."""
