"""The operator's token."""

import pytest

from keelson.events.envelope import Actor
from keelson.service.authentication import OperatorToken, UnauthenticatedError

TOKEN = "sixteen-or-more-characters"


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
async def test_the_token_makes_the_operator(authorization: str) -> None:
    assert await OperatorToken(TOKEN).authenticate(authorization) == Actor("system", "operator")


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
    ],
)
async def test_anything_else_is_nobody(authorization: str | None) -> None:
    with pytest.raises(UnauthenticatedError):
        await OperatorToken(TOKEN).authenticate(authorization)
