"""The operator's token, and what has not the form of a token."""

import pytest

from keelson.access.tokens import new_token
from keelson.service.authentication import OPERATOR, BearerTokens
from keelson.service.credentials import UnauthenticatedError
from keelson.service.problems import Problem

TOKEN = "sixteen-or-more-characters"


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
async def test_the_token_makes_the_operator(authorization: str) -> None:
    assert await BearerTokens("test", TOKEN).authenticate(authorization) is OPERATOR


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        "Bearer \xff\xfe",
        f"Bearer {new_token()[:-1]}",
        f"Bearer {new_token()}0",
    ],
)
async def test_anything_else_is_nobody(authorization: str | None) -> None:
    with pytest.raises(UnauthenticatedError):
        await BearerTokens("test", TOKEN).authenticate(authorization)


async def test_without_an_operators_token_in_the_settings_an_empty_one_is_nobodys() -> None:
    for authorization in ("Bearer ", "Bearer", None):
        with pytest.raises(UnauthenticatedError):
            await BearerTokens("test").authenticate(authorization)


async def test_a_token_of_the_vault_is_not_judged_before_there_is_a_database() -> None:
    with pytest.raises(Problem) as caught:
        await BearerTokens("test", TOKEN).authenticate(f"Bearer {new_token()}")
    assert caught.value.code == "unavailable"
