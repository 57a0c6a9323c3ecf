"""Tokens: `kls_`, 160 random bits, and a checksum by which garbage is known without asking anybody.

The form is GitHub's of 2021 (a prefix that secret scanners find, and a CRC-32); a token is shown once, and only its
SHA-256 is kept. With so many random bits a slow hash would add nothing (NIST SP 800-63B, 5.1.1.2, is of passwords).
"""

import hashlib
import re
import secrets
import zlib

PREFIX = "kls_"
_RANDOM_BYTES = 20
_TOKEN = re.compile(f"{PREFIX}([0-9a-f]{{{2 * _RANDOM_BYTES}}})([0-9a-f]{{8}})")


def new_token() -> str:
    """Make a token that nobody can guess."""
    return _with_checksum(secrets.token_hex(_RANDOM_BYTES))


def is_token(text: str) -> bool:
    """Say whether a text has the form of a token, its checksum included; this says nothing of whether it is good."""
    match = _TOKEN.fullmatch(text)
    return match is not None and _with_checksum(match[1]) == text


def hash_token(token: str) -> bytes:
    """Give what is kept of a token: SHA-256 of its text."""
    return hashlib.sha256(token.encode()).digest()


def _with_checksum(text: str) -> str:
    return f"{PREFIX}{text}{zlib.crc32(text.encode()):08x}"
