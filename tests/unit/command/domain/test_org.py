"""The rules of organisations."""

from keelson.command.domain.org import CreateOrg, QuotaFields, RenameOrg, SetOrgQuota
from keelson.events.org import OrgCreated, OrgMemberAdded, OrgQuotaSet, OrgRenamed, Quota
from keelson.log.decision import Person
from support.specs import ORG, ORG_EXISTS, given, id_of, minted


def test_an_organisation_is_created_under_an_id_of_ours() -> None:
    org = minted("org")
    given().when(CreateOrg(name="acme")).then((org, OrgCreated(name="acme"), {"org_id": org})).answering(org_id=org)


def test_or_under_one_that_the_client_chose() -> None:
    given().when(CreateOrg(name="acme", org_id=ORG)).then((ORG, OrgCreated(name="acme"))).answering(org_id=ORG)


def test_an_id_that_exists_is_taken() -> None:
    given(*ORG_EXISTS).when(CreateOrg(name="other", org_id=ORG)).then_refused("id_taken")


def test_its_name_is_taken_on_the_platform() -> None:
    given().when(CreateOrg(name="acme", org_id=ORG)).taking(("org.name", "acme"))


def test_it_is_created_with_its_first_owner_whose_e_mail_is_in_the_vault_alone() -> None:
    person, member = minted("person", 1), minted("member", 2)
    given().when(CreateOrg(name="acme", org_id=ORG, owner_email="ada@acme.example")).then(
        (ORG, OrgCreated(name="acme")), (ORG, OrgMemberAdded(member_id=member, person_id=person, role="owner"))
    ).people(Person(person, "ada@acme.example", None)).answering(org_id=ORG, member_id=member)


def test_its_first_owner_may_be_known_already() -> None:
    person, member = id_of("person"), minted("member", 1)
    given().having({person: "Ada@acme.example"}).when(
        CreateOrg(name="acme", org_id=ORG, owner_email="ada@ACME.example")
    ).then(
        (ORG, OrgCreated(name="acme")), (ORG, OrgMemberAdded(member_id=member, person_id=person, role="owner"))
    ).people()


def test_a_quota_is_set_as_a_whole() -> None:
    three = given(*ORG_EXISTS).when(SetOrgQuota(org_id=ORG, quota=QuotaFields(apps=3, envs=4)))
    three.then((ORG, OrgQuotaSet(quota=Quota(apps=3, envs=4)))).answering(org_id=ORG)
    limited = (*ORG_EXISTS, (ORG, OrgQuotaSet(quota=Quota(apps=3, envs=4))))
    given(*limited).when(SetOrgQuota(org_id=ORG, quota=QuotaFields(apps=3, envs=4))).then_nothing()
    given(*limited).when(SetOrgQuota(org_id=ORG, quota=QuotaFields())).then((ORG, OrgQuotaSet(quota=Quota())))


def test_renaming_exchanges_the_name() -> None:
    renamed = given(*ORG_EXISTS).when(RenameOrg(org_id=ORG, name="umbrella"))
    renamed.then((ORG, OrgRenamed(name="umbrella"))).taking(("org.name", "umbrella")).answering(org_id=ORG)


def test_renaming_to_the_same_name_changes_nothing() -> None:
    given(*ORG_EXISTS).when(RenameOrg(org_id=ORG, name="acme")).then_nothing().answering(org_id=ORG)


def test_an_organisation_that_never_was_is_not_found() -> None:
    given(*ORG_EXISTS).when(RenameOrg(org_id=id_of("org", 2), name="x")).then_refused("not_found")


def test_in_a_bundle_the_later_ones_see_the_earlier_ones() -> None:
    given().when(CreateOrg(name="acme", org_id=ORG), RenameOrg(org_id=ORG, name="umbrella")).then(
        (ORG, OrgCreated(name="acme")), (ORG, OrgRenamed(name="umbrella"))
    ).taking(("org.name", "umbrella"))


def test_in_a_bundle_a_change_and_its_undoing_are_both_kept() -> None:
    given(*ORG_EXISTS).when(RenameOrg(org_id=ORG, name="b"), RenameOrg(org_id=ORG, name="acme")).then(
        (ORG, OrgRenamed(name="b")), (ORG, OrgRenamed(name="acme"))
    ).taking(("org.name", "acme"))


def test_in_a_bundle_what_an_earlier_one_has_done_changes_nothing_again() -> None:
    given(*ORG_EXISTS).when(RenameOrg(org_id=ORG, name="b"), RenameOrg(org_id=ORG, name="b")).then(
        (ORG, OrgRenamed(name="b"))
    )


def test_in_a_bundle_a_name_that_an_earlier_one_took_is_taken() -> None:
    given().when(CreateOrg(name="acme"), CreateOrg(name="acme")).then_refused("name_taken", at=1)


def test_in_a_bundle_a_name_that_an_earlier_one_freed_is_free() -> None:
    org = minted("org")
    given(*ORG_EXISTS).when(RenameOrg(org_id=ORG, name="old"), CreateOrg(name="acme")).then(
        (ORG, OrgRenamed(name="old")), (org, OrgCreated(name="acme"), {"org_id": org})
    )


def test_in_a_bundle_a_name_taken_and_freed_by_earlier_ones_is_free() -> None:
    org = minted("org")
    given().when(CreateOrg(name="acme", org_id=ORG), RenameOrg(org_id=ORG, name="old"), CreateOrg(name="acme")).then(
        (ORG, OrgCreated(name="acme")),
        (ORG, OrgRenamed(name="old")),
        (org, OrgCreated(name="acme"), {"org_id": org}),
    ).taking(("org.name", "old"), ("org.name", "acme"))


def test_in_a_bundle_an_id_that_an_earlier_one_chose_is_taken() -> None:
    given().when(CreateOrg(name="a", org_id=ORG), CreateOrg(name="b", org_id=ORG)).then_refused("id_taken", at=1)
