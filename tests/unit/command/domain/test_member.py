"""The rules of members and their credentials."""

from datetime import datetime, timedelta, timezone

import msgspec
import pytest

from keelson.access import Identity
from keelson.command.domain.member import (
    AddMember,
    ChangeMemberRole,
    EraseMember,
    IssueMemberCredential,
    RemoveMember,
    RevokeMemberCredential,
)
from keelson.command.handlers import Command
from keelson.events import Actor
from keelson.events.org import (
    OrgCredentialIssued,
    OrgCredentialRevoked,
    OrgMemberAdded,
    OrgMemberErased,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    Role,
)
from keelson.log.decision import Person
from support.specs import NOW, ORG, ORG_EXISTS, Fact, given, id_of, issued, minted, revoked, token

OWNER, ADMIN, DEVELOPER, OTHER_OWNER = (id_of("member", number) for number in (1, 2, 3, 4))
EMAIL = "ada@acme.example"
LATER = NOW + timedelta(days=1)


def person_of(member_id: str) -> str:
    """Give the person behind a member of these specs."""
    return member_id.replace("member", "person")


def credential_of(member_id: str) -> str:
    """Give the credential that a member of these specs has."""
    return member_id.replace("member", "credential")


def added(member_id: str, role: Role) -> Fact:
    return (ORG, OrgMemberAdded(member_id=member_id, person_id=person_of(member_id), role=role))


def has_credential(member_id: str) -> Fact:
    return (ORG, OrgCredentialIssued(member_id=member_id, credential_id=credential_of(member_id)))


def removed(member_id: str) -> Fact:
    return (ORG, OrgMemberRemoved(member_id=member_id))


def as_member(member_id: str) -> Identity:
    """Let a member ask, by the credential that it has."""
    return Identity(Actor("user", member_id), "member", credential_of(member_id), ORG)


STAFFED: tuple[Fact, ...] = (
    *ORG_EXISTS,
    added(OWNER, "owner"),
    added(ADMIN, "admin"),
    added(DEVELOPER, "developer"),
    *map(has_credential, (OWNER, ADMIN, DEVELOPER)),
)
TWO_OWNERS: tuple[Fact, ...] = (*STAFFED, added(OTHER_OWNER, "owner"))
ADD = AddMember(org_id=ORG, email=EMAIL, role="developer", name="Ada")


def test_somebody_new_is_kept_in_the_vault_and_named_by_an_id_in_the_event() -> None:
    person, member = minted("person", 1), minted("member", 2)
    outcome = given(*ORG_EXISTS).when(ADD)
    outcome.then((ORG, OrgMemberAdded(member_id=member, person_id=person, role="developer")))
    outcome.people(Person(person, EMAIL, "Ada")).answering(member_id=member)


def test_somebody_known_keeps_the_name_that_they_have() -> None:
    outcome = given(*ORG_EXISTS).having({"person_x": "ADA@acme.example"}).when(ADD)
    added = OrgMemberAdded(member_id=minted("member", 1), person_id="person_x", role="developer")
    outcome.then((ORG, added)).people()


def test_a_person_is_a_member_once() -> None:
    ada = given(*STAFFED).having({person_of(ADMIN): EMAIL})
    ada.when(ADD).then_refused("name_taken")
    given(*STAFFED).when(ADD, msgspec.structs.replace(ADD, email=EMAIL.upper())).then_refused("name_taken", at=1)
    assert EMAIL not in str(ada.when(ADD).refusal)


def test_who_left_may_come_back_as_another_member() -> None:
    left = given(*STAFFED, removed(ADMIN)).having({person_of(ADMIN): EMAIL})
    member = OrgMemberAdded(member_id=minted("member", 1), person_id=person_of(ADMIN), role="developer")
    left.when(ADD).then((ORG, member))


def test_a_role_is_changed_unless_it_is_so() -> None:
    change = ChangeMemberRole(org_id=ORG, member_id=DEVELOPER, role="admin")
    changed = (ORG, OrgMemberRoleChanged(member_id=DEVELOPER, role="admin"))
    given(*STAFFED).when(change).then(changed).answering(member_id=DEVELOPER)
    given(*STAFFED, changed).when(change).then_nothing()


def test_removing_a_member_takes_its_credentials_hashes_away() -> None:
    outcome = given(*STAFFED).when(RemoveMember(org_id=ORG, member_id=ADMIN))
    outcome.then(removed(ADMIN)).credentials(revoked(credential_of(ADMIN))).people()


@pytest.mark.parametrize(
    "command",
    [
        RemoveMember(org_id=ORG, member_id=OWNER),
        ChangeMemberRole(org_id=ORG, member_id=OWNER, role="admin"),
        EraseMember(org_id=ORG, member_id=OWNER),
    ],
)
def test_the_last_owner_neither_leaves_nor_is_demoted_nor_erased(command: Command) -> None:
    given(*STAFFED).when(command).then_refused("last_owner")
    assert given(*TWO_OWNERS).when(command).refusal is None
    given(*TWO_OWNERS, removed(OTHER_OWNER)).when(command).then_refused("last_owner")


def test_of_two_owners_one_may_leave_in_a_bundle_and_not_both() -> None:
    both = RemoveMember(org_id=ORG, member_id=OTHER_OWNER), RemoveMember(org_id=ORG, member_id=OWNER)
    given(*TWO_OWNERS).when(*both).then_refused("last_owner", at=1)


def test_an_organisation_without_owners_loses_none() -> None:
    given(*ORG_EXISTS, added(ADMIN, "admin")).when(RemoveMember(org_id=ORG, member_id=ADMIN)).then(removed(ADMIN))


ON_AN_OWNER: tuple[Command, ...] = (
    AddMember(org_id=ORG, email=EMAIL, role="owner"),
    ChangeMemberRole(org_id=ORG, member_id=DEVELOPER, role="owner"),
    ChangeMemberRole(org_id=ORG, member_id=OTHER_OWNER, role="admin"),
    RemoveMember(org_id=ORG, member_id=OTHER_OWNER),
    IssueMemberCredential(org_id=ORG, member_id=OTHER_OWNER),
    RevokeMemberCredential(org_id=ORG, member_id=OTHER_OWNER, credential_id=credential_of(OTHER_OWNER)),
)


@pytest.mark.parametrize("command", ON_AN_OWNER, ids=lambda each: type(each).__name__)
def test_only_owners_make_owners_unmake_them_and_act_on_them(command: Command) -> None:
    facts = (*TWO_OWNERS, has_credential(OTHER_OWNER))
    given(*facts).by(as_member(ADMIN)).when(command).then_refused("forbidden")
    assert given(*facts).by(as_member(OWNER)).when(command).refusal is None
    assert given(*facts).when(command).refusal is None, "an operator may"


def test_an_admin_acts_on_those_who_are_no_owners() -> None:
    admin = given(*STAFFED).by(as_member(ADMIN))
    admin.when(RemoveMember(org_id=ORG, member_id=DEVELOPER)).then(removed(DEVELOPER))
    added = OrgMemberAdded(member_id=minted("member", 2), person_id=minted("person", 1), role="admin")
    admin.when(AddMember(org_id=ORG, email=EMAIL, role="admin")).then((ORG, added))


def test_whoever_is_no_admin_still_acts_on_itself() -> None:
    itself = given(*STAFFED).by(as_member(DEVELOPER))
    itself.when(RemoveMember(org_id=ORG, member_id=DEVELOPER)).then(removed(DEVELOPER))
    assert itself.when(IssueMemberCredential(org_id=ORG, member_id=DEVELOPER)).refusal is None
    itself.when(IssueMemberCredential(org_id=ORG, member_id=ADMIN)).then_refused("forbidden")


def test_erasing_ends_the_membership_and_forgets_the_person() -> None:
    outcome = given(*STAFFED).when(EraseMember(org_id=ORG, member_id=ADMIN))
    outcome.then(removed(ADMIN), (ORG, OrgMemberErased(member_id=ADMIN)))
    outcome.people(Person(person_of(ADMIN), None, None)).credentials(revoked(credential_of(ADMIN)))


def test_who_left_is_erased_too_and_only_once() -> None:
    command = EraseMember(org_id=ORG, member_id=ADMIN)
    erased = (ORG, OrgMemberErased(member_id=ADMIN))
    outcome = given(*STAFFED, removed(ADMIN)).when(command)
    outcome.then(erased).people(Person(person_of(ADMIN), None, None)).credentials()
    given(*STAFFED, removed(ADMIN), erased).when(command).then_refused("not_found")


def test_a_token_is_shown_and_its_hash_kept() -> None:
    command = IssueMemberCredential(org_id=ORG, member_id=DEVELOPER, expires_at=LATER)
    credential = minted("credential")
    outcome = given(*STAFFED).when(command)
    outcome.then((ORG, OrgCredentialIssued(member_id=DEVELOPER, credential_id=credential, expires_at=LATER)))
    outcome.credentials(issued(1, credential, "member", ORG, DEVELOPER))
    outcome.answering(credential_id=credential, token=token(1))


def test_credentials_overlap_and_each_is_revoked_once() -> None:
    second = (ORG, OrgCredentialIssued(member_id=DEVELOPER, credential_id="credential_second"))
    revoke = RevokeMemberCredential(org_id=ORG, member_id=DEVELOPER, credential_id=credential_of(DEVELOPER))
    gone = (ORG, OrgCredentialRevoked(member_id=DEVELOPER, credential_id=credential_of(DEVELOPER)))
    outcome = given(*STAFFED, second).when(revoke)
    outcome.then(gone).credentials(revoked(credential_of(DEVELOPER))).answering(credential_id=credential_of(DEVELOPER))
    given(*STAFFED, second, gone).when(revoke).then_refused("not_found")
    other = msgspec.structs.replace(revoke, member_id=ADMIN)
    given(*STAFFED).when(other).then_refused("not_found")


def test_an_expiry_is_in_the_future_and_told_in_utc() -> None:
    def issue(expires_at: datetime) -> IssueMemberCredential:
        return IssueMemberCredential(org_id=ORG, member_id=DEVELOPER, expires_at=expires_at)

    east = timezone(timedelta(hours=9))
    first, last = datetime(1, 1, 1, tzinfo=east), datetime(9999, 12, 31, tzinfo=timezone(timedelta(hours=-9)))
    for unfit in (NOW, NOW - timedelta(seconds=1), first, last):
        given(*STAFFED).when(issue(unfit)).then_refused("bad_expiry")
    event = OrgCredentialIssued(member_id=DEVELOPER, credential_id=minted("credential"), expires_at=LATER)
    outcome = given(*STAFFED).when(issue(LATER.astimezone(east))).then((ORG, event))
    assert str(outcome.last_event(OrgCredentialIssued).expires_at) == str(LATER)


@pytest.mark.parametrize(
    "command",
    [
        ChangeMemberRole(org_id=ORG, member_id=id_of("member", 9), role="admin"),
        RemoveMember(org_id=ORG, member_id=id_of("member", 9)),
        EraseMember(org_id=ORG, member_id=id_of("member", 9)),
        IssueMemberCredential(org_id=ORG, member_id=id_of("member", 9)),
        AddMember(org_id=id_of("org", 9), email=EMAIL, role="admin"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_who_is_no_member_is_not_found(command: Command) -> None:
    given(*STAFFED).when(command).then_refused("not_found")


@pytest.mark.parametrize(
    "email", ["a", "a@b", "a b@c.example", "@c.example", "a@c.example\n", "a@c..example", "ä@c.example", "a@-c.example"]
)
def test_an_e_mail_has_the_published_form_and_what_has_not_is_not_repeated(email: str) -> None:
    fields = {"org_id": ORG, "role": "admin"}
    assert msgspec.convert({**fields, "email": "o'neill+x@c-d.example"}, AddMember)
    for unfit in (email, "a" * 65 + "@c.example", "a@" + "c." * 130 + "example"):
        with pytest.raises(msgspec.ValidationError) as error:
            msgspec.convert({**fields, "email": unfit}, AddMember)
        assert unfit.strip() not in str(error.value) or unfit in ("a", "a@b")
