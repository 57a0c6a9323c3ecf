"""What a token looks like."""

import hashlib

from keelson.access.tokens import hash_token, is_token, new_token


def test_a_token_is_known_by_its_form() -> None:
    token = new_token()

    assert token.startswith("kls_")
    assert len(token) == len("kls_") + 40 + 8
    assert is_token(token)
    assert hash_token(token) == hashlib.sha256(token.encode()).digest()


def test_tokens_are_never_the_same() -> None:
    assert len({new_token() for _ in range(1000)}) == 1000


def test_whatever_is_changed_in_a_token_it_is_none_any_more() -> None:
    token = new_token()

    for index, letter in enumerate(token):
        changed = token[:index] + ("0" if letter != "0" else "1") + token[index + 1 :]
        assert not is_token(changed)
    for cut in ("", token[:-1], token + "0", token.upper(), f" {token}", f"{token}\n", "kls_" + "é" * 48):
        assert not is_token(cut)
