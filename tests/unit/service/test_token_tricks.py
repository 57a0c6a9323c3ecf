"""Tricks with tokens: whatever is none of ours is refused alike, and the database is not asked (F42)."""

import base64
import hmac
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keelson.access.tokens import new_token
from keelson.service.app import Application
from keelson.service.authentication import BearerTokens
from keelson.service.credentials import Credentials, UnauthenticatedError
from unit.service.asgi import TOKEN, Answer, ask, make_app, running

GOOD = new_token()


class Untouched:
    """A database that must not be asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def _ask(self, _query: str, *_args: Any) -> Any:
        self.asked += 1

    fetch = fetchrow = fetchval = _ask


def jwt(header: dict[str, Any], claims: dict[str, Any], key: bytes = b"") -> str:
    """Make a JSON Web Token, signed by HMAC if there is a key."""
    parts = [base64.urlsafe_b64encode(msgspec.json.encode(each)).decode().rstrip("=") for each in (header, claims)]
    signature = hmac.digest(key, ".".join(parts).encode(), "sha256") if key else b""
    return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


OPERATOR_CLAIMS = {"sub": "operator", "iss": "keelson", "aud": "keelson", "exp": 4_102_444_800}
TRICKS = [
    jwt({"alg": "none"}, OPERATOR_CLAIMS),
    jwt({"alg": "nOnE", "typ": "JWT"}, OPERATOR_CLAIMS),
    jwt({"alg": "HS256"}, OPERATOR_CLAIMS, TOKEN.encode()),
    jwt({"alg": "HS256", "kid": "../../dev/null"}, OPERATOR_CLAIMS, b"\0"),
    jwt({"alg": "RS256"}, OPERATOR_CLAIMS, b"-----BEGIN PUBLIC KEY-----"),
    jwt({"alg": "HS256"}, OPERATOR_CLAIMS | {"iss": "other", "aud": "other"}, b"key"),
    jwt({"alg": "HS256"}, OPERATOR_CLAIMS | {"exp": 1}, b"key"),
    *(GOOD[:length] for length in (1, 4, 5, 43, 44, 51)),
    GOOD.upper(),
    GOOD.replace("kls_", "KLS_"),
    GOOD.replace("kls_", "kls-"),
    GOOD.replace("kls_", "ghp_"),
    GOOD.removeprefix("kls_"),
    GOOD + "0",
    GOOD + GOOD,
    f"{GOOD},{GOOD}",
    f"{GOOD} {GOOD}",
    f'"{GOOD}"',
    f"{GOOD}=",
    f"{GOOD}\xa0",
    f"\x85{GOOD}",
    "kls_" + "0" * 48,
    "kls_" + "\xb2" * 48,
    "kls_" + "a" * 100_000,
    "x" * 100_000,
    "%00",
    "' OR '1'='1",
    "null",
    "undefined",
    TOKEN[:-1],
    TOKEN + "x",
    TOKEN.upper(),
]
# Such can stand in the body of a command, where a machine enrols, though in no header.
BEYOND_HEADERS = [GOOD.replace("kls_", "kls_\0"), "kls_" + "\u0663" * 48, "\U0001f511", "\ud800", f"{GOOD}\u2003"]


@pytest.fixture
def database() -> Untouched:
    return Untouched()


@pytest.fixture
async def app(database: Untouched) -> AsyncIterator[Application]:
    tokens = BearerTokens("test", TOKEN)
    tokens.credentials = Credentials(database)
    async with running(make_app(authenticator=tokens)) as app:
        yield app


def told(answer: Answer) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Give all that whoever asked can tell."""
    return answer.status, answer.body, [each for each in answer.headers if each[0] != "x-request-id"]


async def test_f42_what_is_none_of_our_tokens_is_refused_alike_and_the_database_is_not_asked(
    app: Application, database: Untouched
) -> None:
    nobody = told(await ask(app, "GET", "/echo", token=None))
    assert nobody[0] == 401
    for scheme in ("Bearer", "bearer", "Basic", "Token", "Bearer Bearer"):
        for trick in TRICKS:
            answer = await ask(app, "GET", "/echo", ("Authorization", f"{scheme} {trick}"), token=None)
            assert told(answer) == nobody, (scheme, trick)
    assert database.asked == 0


async def test_one_of_our_form_is_looked_up_and_refused_alike(app: Application, database: Untouched) -> None:
    nobody = told(await ask(app, "GET", "/echo", token=None))
    assert told(await ask(app, "GET", "/echo", token=GOOD)) == nobody
    assert database.asked == 1


@pytest.mark.parametrize("operator_token", [TOKEN, ""])
async def test_f42_text_that_no_header_can_hold_is_refused_alike_too(operator_token: str) -> None:
    database, tokens = Untouched(), BearerTokens("test", operator_token)
    tokens.credentials = Credentials(database)
    for trick in [*TRICKS, *BEYOND_HEADERS]:
        with pytest.raises(UnauthenticatedError):
            await tokens.authenticate(f"Bearer {trick}")
    assert database.asked == 0


@settings(derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD) - 1), put=st.text(max_size=3), cut=st.integers(0, 3))
async def test_f42_a_token_with_a_change_is_none(at: int, put: str, cut: int) -> None:
    database, tokens = Untouched(), BearerTokens("test", TOKEN)
    tokens.credentials = Credentials(database)
    changed = GOOD[:at] + put + GOOD[at + cut :]
    if changed.strip(" \t") != GOOD:
        with pytest.raises(UnauthenticatedError):
            await tokens.authenticate(f"Bearer {changed}")
        assert database.asked == 0
