"""Sealing: what was sealed opens in its place and nowhere else; its digest says whether it is equal, and no more."""

import base64
import os

import pytest

from keelson.command.sealing import Sealed, Sealer, SealingError, read_keys
from keelson.command.settings import CommandSettings
from keelson.settings import SettingsError

SECRET, OTHER = "secret_1", "secret_2"
VALUES = {"TOKEN": "kept-from-all-b1rd", "EMPTY": "", "NAME": "ß\u6c34\U0001f511"}
OLD, NEW = os.urandom(32), os.urandom(32)
SEALER = Sealer({"old": OLD}, "key-of-digests-1")
ROTATED = Sealer({"new": NEW, "old": OLD}, "key-of-digests-1")


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_what_was_sealed_opens_and_is_nowhere_to_be_seen() -> None:
    sealed = SEALER.seal(SECRET, 1, VALUES)
    assert sealed.key_id == "old"
    assert SEALER.open(SECRET, 1, *sealed) == VALUES
    assert b"b1rd" not in sealed.sealed
    assert b"TOKEN" not in sealed.sealed


def test_equal_values_are_sealed_differently_each_time() -> None:
    first, second = SEALER.seal(SECRET, 1, VALUES).sealed, SEALER.seal(SECRET, 1, VALUES).sealed
    # Each part: nonce and wrapped key, nonce and values.
    assert first[1:61] != second[1:61]
    assert first[61:] != second[61:]


def test_every_byte_is_guarded() -> None:
    sealed = SEALER.seal(SECRET, 1, {"A": "b"})
    for place in range(len(sealed.sealed)):
        edited = bytearray(sealed.sealed)
        edited[place] ^= 1
        with pytest.raises(SealingError, match="not what was sealed"):
            SEALER.open(SECRET, 1, *sealed._replace(sealed=bytes(edited)))


def test_what_was_cut_short_does_not_open() -> None:
    sealed = SEALER.seal(SECRET, 1, VALUES)
    for length in range(len(sealed.sealed)):
        with pytest.raises(SealingError):
            SEALER.open(SECRET, 1, *sealed._replace(sealed=sealed.sealed[:length]))
    with pytest.raises(SealingError):
        SEALER.open(SECRET, 1, *sealed._replace(sealed=sealed.sealed + b"\0"))


@pytest.mark.parametrize(("secret_id", "version"), [(OTHER, 1), (SECRET, 2), ("secret_", 11)])
def test_a_row_in_the_place_of_another_does_not_open(secret_id: str, version: int) -> None:
    sealed = SEALER.seal(SECRET, 1, VALUES)
    with pytest.raises(SealingError):
        SEALER.open(secret_id, version, *sealed)
    with pytest.raises(SealingError):
        ROTATED.rewrap(secret_id, version, *sealed)


def test_halves_of_two_rows_make_no_third() -> None:
    first, second = SEALER.seal(SECRET, 1, VALUES).sealed, SEALER.seal(SECRET, 1, VALUES).sealed
    with pytest.raises(SealingError):
        SEALER.open(SECRET, 1, *Sealed("old", first[:61] + second[61:]))


def test_another_master_key_does_not_open() -> None:
    sealed = SEALER.seal(SECRET, 1, VALUES)
    with pytest.raises(SealingError):
        Sealer({"old": NEW}, "key-of-digests-1").open(SECRET, 1, *sealed)
    with pytest.raises(SealingError, match="sealed by old, a key that is not set"):
        Sealer({"new": OLD}, "key-of-digests-1").open(SECRET, 1, *sealed)
    with pytest.raises(SealingError):
        Sealer({"old": OLD, "new": OLD}, "key-of-digests-1").open(SECRET, 1, *sealed._replace(key_id="new"))


def test_rotation_wraps_the_data_key_anew_and_nothing_else() -> None:
    sealed = SEALER.seal(SECRET, 1, VALUES)
    rewrapped = ROTATED.rewrap(SECRET, 1, *sealed)
    assert rewrapped.key_id == ROTATED.key_id == "new"
    assert rewrapped.sealed[61:] == sealed.sealed[61:]
    assert rewrapped.sealed[1:61] != sealed.sealed[1:61]
    assert Sealer({"new": NEW}, "other-key-of-digests").open(SECRET, 1, *rewrapped) == VALUES
    assert ROTATED.open(SECRET, 1, *sealed) == VALUES, "until it is rewrapped"


def test_an_error_tells_neither_value_nor_key() -> None:
    sealed = SEALER.seal(SECRET, 1, VALUES)
    with pytest.raises(SealingError) as error:
        SEALER.open(OTHER, 1, *sealed)
    assert "b1rd" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_digest_says_whether_values_are_equal_and_outlives_a_rotation() -> None:
    digest = SEALER.digest(SECRET, VALUES)
    assert digest == SEALER.digest(SECRET, dict(reversed(VALUES.items()))) == ROTATED.digest(SECRET, VALUES)
    assert digest != SEALER.digest(SECRET, VALUES | {"EMPTY": " "})
    assert digest != SEALER.digest(OTHER, VALUES), "two secrets with the same values are not seen to have them"
    assert digest != Sealer({"old": OLD}, "key-of-digests-2").digest(SECRET, VALUES)
    assert len(digest) == len("hmac-sha256:") + 64


def test_the_first_key_seals() -> None:
    text = f"2026-11:{encoded(NEW)}, 2025-11:{encoded(OLD)}"
    assert list(read_keys(text).items()) == [("2026-11", NEW), ("2025-11", OLD)]


@pytest.mark.parametrize(
    "text",
    [
        "b1rd",
        f"{encoded(OLD)}b1rd",
        f":{encoded(OLD)}",
        f"a b:{encoded(OLD)}",
        f"a:{encoded(OLD)},",
        f"a:{encoded(OLD)},a:{encoded(NEW)}",
        f"a:{encoded(OLD[:31])}",
        f"a:{encoded(OLD + b'1')}",
        f"a:{encoded(OLD)[:-1]}",
        f"a:{encoded(OLD)[:-2]}!=",
        f"a:{encoded(OLD)};b:{encoded(NEW)}",
    ],
)
def test_keys_that_are_none_stop_the_service_and_are_not_told(text: str) -> None:
    environ = {
        "KEELSON_DATABASE_URL": "postgresql://keelson_command@localhost/keelson",
        "KEELSON_OPERATOR_TOKEN": "token-of-the-operator",
        "KEELSON_IDEMPOTENCY_SECRET": "secret-of-idempotency",
        "KEELSON_DIGEST_KEY": "key-of-the-digests",
        "KEELSON_SECRET_KEYS": text,
    }
    with pytest.raises(SettingsError, match="KEELSON_SECRET_KEYS: expected ID:KEY") as error:
        CommandSettings.load(environ)
    assert text not in str(error.value)
    good = CommandSettings.load(environ | {"KEELSON_SECRET_KEYS": f"a:{encoded(OLD)}"})
    assert encoded(OLD) not in repr(good)
    assert "key-of-the-digests" not in repr(good)
