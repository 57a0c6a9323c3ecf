"""Keys that the command services of tests seal with; each value is sealed by them alone."""

import base64

SECRET_KEYS = f"tests:{base64.b64encode(bytes(range(32))).decode()}"
DIGEST_KEY = "keys-digests-of-the-tests"

# What a command service needs besides its database, as settings are named.
SEALING = {"secret_keys": SECRET_KEYS, "digest_key": DIGEST_KEY}
