"""Sealing: secrets' values as the vault keeps them, which the database can neither read nor exchange.

Envelope encryption: each version of a secret has a random data key of its own, which encrypts the values; a master
key, from the settings, wraps the data key. So masters are exchanged without touching what they protect: a data key is
wrapped anew (`rewrap`), and the values, which never change, stay as they are. Both are AES-256-GCM (NIST SP 800-38D)
with random nonces of 96 bits: a data key encrypts once, and a master is good for 2^32 versions.

A sealed value, in bytes:

    1 format | 12 nonce | 48 wrapped data key, with its tag | 12 nonce | encrypted values, with their tag

Both are bound to the secret's id, the version and the format, the data key to its master's id too: a row that somebody
edits, cuts short or puts in the place of another does not open (F44).
"""

import base64
import hmac
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
EXPECTED_KEYS = "ID:KEY, or several with commas between, each KEY 32 random bytes in Base64 (openssl rand -base64 32)"

_FORMAT = b"\x01"
_NONCE_BYTES = 12
_WRAPPED_BYTES = KEY_BYTES + 16
_HEAD_BYTES = len(_FORMAT) + _NONCE_BYTES + _WRAPPED_BYTES
_LEAST_BYTES = _HEAD_BYTES + _NONCE_BYTES + 16
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# In order of names: equal values have equal bytes, and so equal digests.
_ENCODER = msgspec.json.Encoder(order="deterministic")


class SealingError(Exception):
    """A sealed value does not open: it was tampered with, or the settings lack its master key; never tells it."""


class Sealed(NamedTuple):
    """What the vault keeps of one version, beside the secret's id and the version: useless without the master key."""

    key_id: str
    sealed: bytes


class Sealer:
    """Seals with the first master key, opens with any of them, and makes the digests that events carry."""

    def __init__(self, keys: Mapping[str, bytes], digest_key: str) -> None:
        self._masters = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.key_id = next(iter(keys))
        self._digest_key = _derive(digest_key)

    def seal(self, secret_id: str, version: int, values: Mapping[str, str]) -> Sealed:
        """Encrypt the values of one version; each time to other bytes."""
        data_key = AESGCM.generate_key(KEY_BYTES * 8)
        nonce = os.urandom(_NONCE_BYTES)
        encrypted = AESGCM(data_key).encrypt(nonce, _ENCODER.encode(values), _bound(b"values", secret_id, version))
        return Sealed(self.key_id, self._wrap(secret_id, version, data_key) + nonce + encrypted)

    def open(self, secret_id: str, version: int, key_id: str, sealed: bytes) -> dict[str, str]:
        """Decrypt the values of one version. Raises SealingError for anything but what was sealed for it."""
        data_key = self._unwrap(secret_id, version, key_id, sealed)
        nonce, encrypted = _cut(sealed[_HEAD_BYTES:])
        try:
            content = AESGCM(data_key).decrypt(nonce, encrypted, _bound(b"values", secret_id, version))
        except InvalidTag:
            raise _not_whole(secret_id, version) from None
        return msgspec.json.decode(content, type=dict[str, str])

    def rewrap(self, secret_id: str, version: int, key_id: str, sealed: bytes) -> Sealed:
        """Wrap a data key under the first master key; the values are not decrypted. Raises SealingError."""
        data_key = self._unwrap(secret_id, version, key_id, sealed)
        return Sealed(self.key_id, self._wrap(secret_id, version, data_key) + sealed[_HEAD_BYTES:])

    def digest(self, secret_id: str, values: Mapping[str, str]) -> str:
        """Give a secret's digest of values: equal if and only if they are, whichever master key seals them.

        HMAC-SHA-256: who lacks the key cannot guess values by it, however short they are. It is of this secret alone:
        nobody finds out what another secret holds by setting guesses in one of theirs.
        """
        content = secret_id.encode() + b"\0" + _ENCODER.encode(values)
        return "hmac-sha256:" + hmac.digest(self._digest_key, content, "sha256").hex()

    def _wrap(self, secret_id: str, version: int, data_key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound(b"key " + self.key_id.encode(), secret_id, version)
        return _FORMAT + nonce + self._masters[self.key_id].encrypt(nonce, data_key, bound)

    def _unwrap(self, secret_id: str, version: int, key_id: str, sealed: bytes) -> bytes:
        if key_id not in self._masters:
            raise SealingError(f"version {version} of {secret_id} is sealed by {key_id}, a key that is not set")
        if len(sealed) < _LEAST_BYTES or sealed[:1] != _FORMAT:
            raise _not_whole(secret_id, version)
        nonce, wrapped = _cut(sealed[len(_FORMAT) : _HEAD_BYTES])
        try:
            return self._masters[key_id].decrypt(nonce, wrapped, _bound(b"key " + key_id.encode(), secret_id, version))
        except InvalidTag:
            raise _not_whole(secret_id, version) from None


def read_keys(text: str) -> dict[str, bytes]:
    """Read master keys from their setting, in order. Raises ValueError, silent about them, for anything else."""
    keys: dict[str, bytes] = {}
    for part in text.split(","):
        key_id, _, encoded = part.strip().partition(":")
        key = base64.b64decode(encoded, validate=True)
        if not _KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES or key_id in keys:
            raise ValueError
        keys[key_id] = key
    return keys


def check_keys(text: str) -> None:
    """Raise ValueError, silent about it, for a setting that holds no master keys."""
    read_keys(text)


def _derive(digest_key: str) -> bytes:
    """Derive the digests' key (RFC 5869): a setting's text may be of any length and form."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"keelson digests of secrets").derive(digest_key.encode())


def _bound(what: bytes, secret_id: str, version: int) -> bytes:
    """Give the associated data: neither ids nor key ids have a NUL, so no two places have the same."""
    return b"\0".join((b"keelson", _FORMAT, what, secret_id.encode(), str(version).encode()))


def _cut(content: bytes) -> tuple[bytes, bytes]:
    return content[:_NONCE_BYTES], content[_NONCE_BYTES:]


def _not_whole(secret_id: str, version: int) -> SealingError:
    return SealingError(f"version {version} of {secret_id} is not what was sealed")
