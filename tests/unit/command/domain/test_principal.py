"""The rules of service principals."""

from datetime import timedelta

import msgspec
import pytest

from keelson.access import Identity
from keelson.command.domain.principal import (
    CreatePrincipal,
    DeletePrincipal,
    IssuePrincipalCredential,
    RevokePrincipalCredential,
    SetPrincipalScopes,
)
from keelson.command.handlers import Command
from keelson.events import Actor
from keelson.events.org import OrgCredentialIssued, OrgMemberAdded, Role
from keelson.events.principal import (
    PrincipalCreated,
    PrincipalCredentialIssued,
    PrincipalCredentialRevoked,
    PrincipalDeleted,
    PrincipalScopesSet,
)
from support.specs import NOW, ORG, ORG_EXISTS, Fact, given, id_of, issued, minted, revoked, token

CI, DEPLOYER, PLATFORMS = (id_of("principal", number) for number in (1, 2, 3))
FIRST, SECOND = (id_of("credential", number) for number in (1, 2))
NO_ORG: dict[str, str | None] = {"org_id": None}

EXISTS: tuple[Fact, ...] = (*ORG_EXISTS, (CI, PrincipalCreated(name="ci", scopes=("apps:read", "deploys:write"))))
ROTATING: tuple[Fact, ...] = (
    *EXISTS,
    (CI, PrincipalCredentialIssued(credential_id=FIRST)),
    (CI, PrincipalCredentialIssued(credential_id=SECOND, expires_at=NOW + timedelta(days=1))),
)


def member(role: Role) -> tuple[tuple[Fact, ...], Identity]:
    """Give a member of the organisation, and that it asks."""
    member_id, credential_id = id_of("member"), id_of("credential", 9)
    facts: tuple[Fact, ...] = (
        (ORG, OrgMemberAdded(member_id=member_id, person_id=id_of("person"), role=role)),
        (ORG, OrgCredentialIssued(member_id=member_id, credential_id=credential_id)),
    )
    return facts, Identity(Actor("user", member_id), "member", credential_id, ORG)


def create(*scopes: str) -> CreatePrincipal:
    """Create one in the organisation."""
    return CreatePrincipal(org_id=ORG, name="ci", scopes=list(scopes), principal_id=CI)


def test_one_is_created_in_an_organisation_its_scopes_each_once_and_in_order() -> None:
    outcome = given(*ORG_EXISTS).when(create("deploys:write", "apps:read", "apps:read"))
    outcome.then((CI, PrincipalCreated(name="ci", scopes=("apps:read", "deploys:write")))).answering(principal_id=CI)
    outcome.taking((f"principal.name:{ORG}", "ci"))


def test_without_an_organisation_it_is_an_operator_of_the_platform() -> None:
    outcome = given().when(CreatePrincipal(name="robot", scopes=["operator"]))
    outcome.then((minted("principal"), PrincipalCreated(name="robot", scopes=("operator",)), NO_ORG))
    outcome.taking(("principal.name:platform", "robot"))


@pytest.mark.parametrize(
    "command",
    [
        create("operator"),
        create("apps:read", "operator"),
        CreatePrincipal(name="robot", scopes=["apps:read"]),
        CreatePrincipal(name="robot", scopes=["*"]),
        CreatePrincipal(name="robot", scopes=["operator", "apps:read"]),
    ],
)
def test_operator_is_the_platforms_scope_and_its_only_one(command: Command) -> None:
    given(*ORG_EXISTS).when(command).then_refused("wrong_scope")


def test_an_organisation_must_be_there() -> None:
    given().when(create("apps:read")).then_refused("not_found")


@pytest.mark.parametrize(
    ("role", "scopes", "may"),
    [
        ("owner", ("*",), True),
        ("owner", ("members:write", "principals:write"), True),
        ("admin", ("*",), False),
        ("admin", ("members:write", "principals:write", "org:write"), True),
        ("developer", ("deploys:write",), False),
        ("developer", ("members:write",), False),
    ],
)
def test_it_has_no_more_scopes_than_its_maker(role: Role, scopes: tuple[str, ...], may: bool) -> None:
    facts, identity = member(role)
    outcome = given(*ORG_EXISTS, *facts).by(identity).when(create(*scopes))
    assert (outcome.refusal.code if outcome.refusal else None) == (None if may else "forbidden")

    narrow = (CI, PrincipalCreated(name="ci", scopes=("apps:read",)))
    command = SetPrincipalScopes(principal_id=CI, scopes=list(scopes))
    outcome = given(*ORG_EXISTS, *facts, narrow).by(identity).when(command)
    assert (outcome.refusal.code if outcome.refusal else None) == (None if may else "forbidden")


def test_a_principal_makes_no_principal_beyond_itself() -> None:
    maker = (
        *ORG_EXISTS,
        (DEPLOYER, PrincipalCreated(name="deployer", scopes=("deploys:write", "principals:write"))),
        (DEPLOYER, PrincipalCredentialIssued(credential_id=FIRST)),
    )
    by_it = given(*maker).by(Identity(Actor("principal", DEPLOYER), "principal", FIRST, DEPLOYER))
    by_it.when(create("apps:read")).then_refused("forbidden")
    by_it.when(create("*")).then_refused("forbidden")
    by_it.when(create("deploys:read")).then((CI, PrincipalCreated(name="ci", scopes=("deploys:read",))))


@pytest.mark.parametrize(
    "command",
    [
        SetPrincipalScopes(principal_id=CI, scopes=["apps:read"]),
        IssuePrincipalCredential(principal_id=CI),
        RevokePrincipalCredential(principal_id=CI, credential_id=FIRST),
        DeletePrincipal(principal_id=CI),
    ],
    ids=lambda each: type(each).__name__,
)
def test_nobody_acts_on_a_principal_that_has_more(command: Command) -> None:
    facts, identity = member("admin")
    mighty = (CI, PrincipalCreated(name="ci", scopes=("*",))), (CI, PrincipalCredentialIssued(credential_id=FIRST))
    given(*ORG_EXISTS, *facts, *mighty).by(identity).when(command).then_refused("forbidden")
    facts, identity = member("owner")
    assert given(*ORG_EXISTS, *facts, *mighty).by(identity).when(command).refusal is None


def test_scopes_are_set_as_a_whole_unless_they_are_so() -> None:
    narrowed = SetPrincipalScopes(principal_id=CI, scopes=["apps:read"])
    given(*EXISTS).when(narrowed).then((CI, PrincipalScopesSet(scopes=("apps:read",)))).answering(principal_id=CI)
    same = SetPrincipalScopes(principal_id=CI, scopes=["deploys:write", "apps:read"])
    given(*EXISTS).when(same).then_nothing()


def test_a_token_is_shown_and_its_hash_kept_while_the_others_stay_good() -> None:
    credential = minted("credential")
    outcome = given(*ROTATING).when(IssuePrincipalCredential(principal_id=CI))
    outcome.then((CI, PrincipalCredentialIssued(credential_id=credential)))
    outcome.credentials(issued(1, credential, "principal", CI, CI))
    outcome.answering(credential_id=credential, token=token(1))
    past = IssuePrincipalCredential(principal_id=CI, expires_at=NOW)
    given(*EXISTS).when(past).then_refused("bad_expiry")


def test_a_credential_is_revoked_once() -> None:
    revoke = RevokePrincipalCredential(principal_id=CI, credential_id=FIRST)
    gone = (CI, PrincipalCredentialRevoked(credential_id=FIRST))
    given(*ROTATING).when(revoke).then(gone).credentials(revoked(FIRST)).answering(credential_id=FIRST)
    given(*ROTATING, gone).when(revoke).then_refused("not_found")
    given(*EXISTS).when(revoke).then_refused("not_found")


def test_deleting_takes_all_credentials_and_frees_the_name() -> None:
    outcome = given(*ROTATING).when(DeletePrincipal(principal_id=CI))
    outcome.then((CI, PrincipalDeleted())).credentials(revoked(FIRST), revoked(SECOND))
    again = msgspec.structs.replace(create("apps:read"), principal_id=DEPLOYER)
    deleted = (*ROTATING, (CI, PrincipalDeleted()))
    given(*deleted).when(again).then((DEPLOYER, PrincipalCreated(name="ci", scopes=("apps:read",))))
    for command in (DeletePrincipal(principal_id=CI), IssuePrincipalCredential(principal_id=CI)):
        given(*deleted).when(command).then_refused("not_found")


@pytest.mark.parametrize("scope", ["apps", "apps:*", "apps:read\n", "nodes:read", "OPERATOR", "", "**"])
def test_a_scope_that_there_is_not_fits_no_schema(scope: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"org_id": ORG, "name": "ci", "scopes": [scope]}, CreatePrincipal)
