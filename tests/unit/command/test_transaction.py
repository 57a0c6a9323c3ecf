"""What a transaction remembers: claim holders, limits, and the vault as its own changes leave it."""

from collections.abc import Callable
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from keelson.access.tokens import hash_token
from keelson.command.answers import keep_results
from keelson.command.domain.env import Env
from keelson.command.domain.org import Org
from keelson.command.fields import ONCE, once_only
from keelson.command.limits import limit_that_refused, limits_of
from keelson.command.refusal import Refusal
from keelson.command.registry import HANDLERS
from keelson.command.state import StateCache
from keelson.command.transaction import Supply, Transaction
from keelson.command.vault import SealedSecret
from keelson.events import Ids
from keelson.events.env import EnvScaled, instances_wanted_in
from keelson.events.org import NAMES, OrgCreated, OrgRenamed
from keelson.log.decision import CredentialRow, Limit, OverLimit, Person, SecretRow
from support.specs import (
    ENV,
    ENV_EXISTS,
    NOW,
    OPERATOR,
    ORG,
    ORG_EXISTS,
    Fact,
    History,
    OpenSealer,
    Stored,
    id_of,
    issued,
    minted,
    revoked,
    token,
)

PERSON, MEMBER, CREDENTIAL, SECRET = map(id_of, ("person", "member", "credential", "secret"))
EMAIL = "Ada@example.org"


def begin(*facts: Fact, stored: Stored | None = None) -> Transaction:
    ids, tokens = iter(range(1, 100)), iter(range(1, 100))
    supply = Supply(lambda prefix: minted(prefix, next(ids)), lambda: token(next(tokens)), OpenSealer())
    return Transaction(History(facts, stored), StateCache("epoch"), supply, identity=OPERATOR, now=NOW)


async def create_org(tx: Transaction, name: str) -> str:
    org_id = await tx.new_id(Org, None)
    tx.create(Org, org_id, Ids(org_id=org_id), OrgCreated(name=name))
    return org_id


async def test_who_holds_a_key_is_as_the_events_leave_it_and_who_held_it_before_is_read() -> None:
    tx = begin(*ORG_EXISTS)
    tx.grants = msgspec.structs.replace(tx.grants, operator=True)
    assert await tx.holder(NAMES, "acme") == ORG
    assert await tx.holder(NAMES, "free") is None
    org = await tx.get(Org, ORG)
    tx.append(org, OrgRenamed(name="other"))
    assert await tx.holder(NAMES, "acme") is None
    assert await tx.holder(NAMES, "other") == ORG
    made = await create_org(tx, "acme")
    assert await tx.holder(NAMES, "acme") == made
    assert tx.reads.keys == {(NAMES, "acme"): ORG, (NAMES, "free"): None}


async def test_a_person_is_found_in_whichever_case_and_as_the_transaction_leaves_them() -> None:
    tx = begin(stored=Stored({PERSON: EMAIL}))
    assert await tx.find_person("ADA@example.org") == PERSON
    assert await tx.find_person("bob@example.org") is None
    assert tx.reads.people == {"ADA@example.org": PERSON, "bob@example.org": None}
    tx.keep_person("person_b", "Bob@example.org", "Bob")
    assert await tx.find_person("bob@EXAMPLE.org") == "person_b"
    tx.erase_person(PERSON)
    assert await tx.find_person(EMAIL) is None
    tx.keep_person("person_c", EMAIL, None)
    assert await tx.find_person("ada@example.org") == "person_c"
    assert tx.vault.people == [
        Person("person_b", "Bob@example.org", "Bob"),
        Person(PERSON, None, None),
        Person("person_c", EMAIL, None),
    ]


async def test_whose_email_has_changed_is_not_found_by_the_old_one() -> None:
    tx = begin(stored=Stored({PERSON: EMAIL}))
    tx.keep_person(PERSON, "new@example.org", None)
    assert await tx.find_person(EMAIL) is None
    assert await tx.find_person("new@example.org") == PERSON


def test_of_a_credential_its_hash_is_kept_and_its_token_told_once() -> None:
    tx = begin()
    assert tx.mint("credential") == minted("credential")
    assert tx.issue_credential(CREDENTIAL, "member", ORG, MEMBER) == token(1)
    assert tx.issue_credential("credential_b", "node", "node_1", "node_1") == token(2)
    assert tx.vault.credentials == [
        issued(1, CREDENTIAL, "member", ORG, MEMBER),
        CredentialRow("credential_b", hash_token(token(2)), "node", "node_1", "node_1"),
    ]
    tx.revoke_credential(CREDENTIAL)
    assert tx.vault.credentials[0] == revoked(CREDENTIAL)


async def test_what_is_sealed_can_be_opened_by_a_later_command() -> None:
    tx = begin(stored=Stored(secrets={(SECRET, 1): {"A": "1"}}))
    assert await tx.open_secret(SECRET, 1) == {"A": "1"}
    assert await tx.open_secret(SECRET, 2) is None
    assert tx.seal_secret(SECRET, 2, {"B": "2"}) == OpenSealer().digest(SECRET, {"B": "2"})
    assert await tx.open_secret(SECRET, 2) == {"B": "2"}
    tx.erase_secret(SECRET)
    assert await tx.open_secret(SECRET, 1) is None
    assert await tx.open_secret(SECRET, 2) is None
    tx.seal_secret(SECRET, 3, {"C": "3"})
    assert await tx.open_secret(SECRET, 3) == {"C": "3"}
    sealed = SealedSecret(*OpenSealer().seal(SECRET, 3, {"C": "3"}))
    assert tx.vault.secrets == [SecretRow(SECRET, None, None, None), SecretRow(SECRET, 3, *sealed)]


def test_a_transaction_that_leaves_the_vault_alone_says_so() -> None:
    assert not begin().vault.is_changed
    changes: tuple[Callable[[Transaction], object], ...] = (
        lambda tx: tx.keep_person(PERSON, EMAIL, None),
        lambda tx: tx.revoke_credential(CREDENTIAL),
        lambda tx: tx.seal_secret(SECRET, 1, {}),
        lambda tx: tx.erase_secret(SECRET),
    )
    for change in changes:
        tx = begin()
        change(tx)
        assert tx.vault.is_changed


async def limited(*limits: int | None) -> Transaction:
    """Create an organisation by each command, that limits how many there may be; None limits nothing."""
    tx = begin()
    for tx.command_index, held in enumerate(limits):
        if held is not None:
            tx.limit(NAMES, held=held, refusal=Refusal("quota_exceeded", f"command {tx.command_index}"))
        await create_org(tx, f"name-{tx.command_index}")
    return tx


@pytest.mark.parametrize(
    ("limits", "held_afterwards", "refused"),
    [
        ([5], 6, 0),
        ([5, 5, 5], 7, 1),
        ([5, 5, 5], 6, 2),
        ([5, 5, 5], 9, 0),
        ([None, 5, 9], 7, 1),
        ([9, 5], 7, 1),
        ([5, 9], 7, 0),
        ([5, 9], 10, 0),
    ],
)
async def test_the_first_command_that_passes_its_limit_is_refused(
    limits: list[int | None], held_afterwards: int, refused: int
) -> None:
    tx = await limited(*limits)
    over = limit_that_refused(tx, [(None, 1)] * len(limits), OverLimit(NAMES, held_afterwards, 0))
    assert (over.command_index, over.refusal.detail) == (refused, f"command {refused}")


async def test_a_limit_holds_for_the_scope_as_its_own_command_leaves_it() -> None:
    """Later commands of a bundle take more under limits of their own: a quota that was raised before, or none."""
    tx = await limited(5, 9, None)
    assert limits_of(tx, [(None, 1)] * 3) == [Limit(NAMES, 7, None), Limit(NAMES, 10, None)]


async def test_f12_what_a_later_command_wants_less_of_does_not_loosen_a_limit() -> None:
    """An environment is scaled up, beyond the limit, and down a little: that it was beyond counts."""
    tx = begin(*ENV_EXISTS)
    env = await tx.read(Env, ENV)
    assert env is not None
    wanted = instances_wanted_in(ORG)
    tx.limit(wanted, amount=10, refusal=Refusal("quota_exceeded", "too many"))
    tx.append(env, EnvScaled(replicas={"web": 9}))
    tx.append(env, EnvScaled(replicas={"web": 8}))
    separately = [(None, 1), (None, 1)]
    assert limits_of(tx, separately) == [Limit(wanted, None, 9)]
    assert limit_that_refused(tx, separately, OverLimit(wanted, 2, 10)).command_index == 0
    with pytest.raises(LookupError):
        limit_that_refused(tx, separately, OverLimit(wanted, 2, 9))
    assert limits_of(tx, [(None, 2)]) == [Limit(wanted, None, 10)]


class Shown(msgspec.Struct, frozen=True):
    """A result with all kinds of fields."""

    id: str
    token: Annotated[str | None, ONCE]
    values: Annotated[dict[str, str] | None, Meta(extra={"once": True})] = None
    other: Annotated[str | None, Meta(description="kept")] = None


def test_what_is_shown_once_is_not_kept() -> None:
    result = Shown("id", "token-1", {"A": "secret"}, "other")
    assert keep_results([(result, 2)]) == (
        '[{"result":{"id":"id","token":null,"values":null,"other":"other"},"events":2}]'
    )
    assert result.token == "token-1"


def test_what_a_command_shows_once_may_be_null() -> None:
    for handler in HANDLERS.values():
        for name in once_only(handler.result):
            (field,) = [each for each in msgspec.structs.fields(handler.result) if each.name == name]
            assert msgspec.convert(None, field.type) is None, f"{handler.name}: {name}"
