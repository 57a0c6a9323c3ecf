"""Members while another replica acts: owners who leave, people who are added twice (F12, F13a)."""

from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest

from integration.test_route_races import in_turns
from support.command_world import World, open_world
from support.database import Database
from support.independent import faults_of_rules


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with open_world(database, replicas=2) as world:
        yield world


async def faults(world: World) -> list[str]:
    """Name the rules that the log breaks, by code that shares nothing with the service's."""
    return faults_of_rules([msgspec.structs.asdict(event) for event in await world.events()])


async def test_f12_of_two_owners_who_leave_at_once_one_stays(world: World) -> None:
    """Two hundred organisations; each owner leaves on another replica, or is demoted there."""
    outcomes: Counter[tuple[int, int]] = Counter()
    for turn in range(200):
        created = await world.replica.command("org.create", name=f"org-{turn}", owner_email=f"one-{turn}@acme.example")
        org_id, one = created.result["org_id"], created.result["member_id"]
        added = await world.replica.command("org.add_member", org_id=org_id, email="two@acme.example", role="owner")
        two = added.result["member_id"]
        left, right = await in_turns(
            turn,
            world.replicas[turn // 2 % 2].command("org.remove_member", org_id=org_id, member_id=one),
            world.replicas[1 - turn // 2 % 2].command(
                *("org.change_member_role",), org_id=org_id, member_id=two, role="readonly"
            )
            if turn % 4 < 2
            else world.replicas[1 - turn // 2 % 2].command("org.remove_member", org_id=org_id, member_id=two),
        )
        outcomes[left.status, right.status] += 1
        lost = left if left.status == 422 else right
        assert lost.code == "last_owner"
    assert outcomes.keys() == {(200, 422), (422, 200)}, outcomes
    assert not await faults(world)


async def test_f12_an_e_mail_that_is_added_twice_at_once_is_one_person_and_one_member(world: World) -> None:
    """Two hundred e-mails, to one organisation by two replicas, in whichever case."""
    org_id = await world.create_org()
    for turn in range(200):
        first, second = await in_turns(
            turn,
            world.replicas[turn // 2 % 2].command(
                "org.add_member", org_id=org_id, email=f"ada-{turn}@acme.example", role="developer"
            ),
            world.replicas[1 - turn // 2 % 2].command(
                "org.add_member", org_id=org_id, email=f"ADA-{turn}@acme.example", role="admin"
            ),
        )
        won, lost = sorted((first, second), key=lambda answer: answer.status)
        assert (won.status, lost.status, lost.code) == (200, 409, "name_taken")
    assert await world.log.fetchval("SELECT count(*) FROM vault.people") == 200
    assert not await faults(world)


async def test_f12_somebody_who_is_new_to_two_organisations_at_once_is_one_person(world: World) -> None:
    """Two hundred e-mails, each to two organisations by two replicas: both are done, and name one person."""
    orgs = [await world.create_org() for _ in range(2)]
    for turn in range(200):
        email = f"ada-{turn}@acme.example"
        answers = await in_turns(
            turn,
            world.replicas[0].command("org.add_member", org_id=orgs[0], email=email, role="admin"),
            world.replicas[1].command("org.add_member", org_id=orgs[1], email=email.upper(), role="admin"),
        )
        assert [answer.status for answer in answers] == [200, 200]
    people = Counter(
        msgspec.json.decode(event.payload)["person_id"]
        for event in await world.events()
        if event.type == "org.member_added"
    )
    assert set(people.values()) == {2}
    assert await world.log.fetchval("SELECT count(*) FROM vault.people") == len(people) == 200
