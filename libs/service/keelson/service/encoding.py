"""JSON for people who must get an answer: encoding that never fails, for problems and logs."""

from typing import Any

import msgspec

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def encode_anything(value: Any) -> bytes:
    """Encode a value; what JSON does not know is its repr, and what UTF-8 cannot hold (lone surrogates) is replaced."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_replace(msgspec.to_builtins(value, enc_hook=repr)))


def _replace(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_replace(key): _replace(item) for key, item in value.items()}
        case list() | tuple():
            return [_replace(item) for item in value]
        case _:
            return value
