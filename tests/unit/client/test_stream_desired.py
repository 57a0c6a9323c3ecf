"""Following what a node should be doing: every version once, verified, and never an older one."""

import pytest

from keelson.client import Confirmed, Desired, ProblemError, StreamTimes
from keelson.client.stream import DesiredItem
from unit.client.streaming import (
    QUICK,
    Answer,
    Asked,
    StreamServer,
    confirmation,
    cut,
    digest_of,
    frame,
    instance,
    refusing,
    snapshot,
    streaming,
)
from unit.client.test_stream import take


async def followed(
    *answers: Answer, last: int, known: str | None = None, digest: str | None = None
) -> tuple[StreamServer, list[DesiredItem]]:
    """Follow until version `last` is given or confirmed."""
    server = StreamServer(*answers)
    async with server.client() as client:
        items = await take(client.follow_desired("node_1", known, digest), lambda each: each.version == last)
    return server, items


def versions(items: list[DesiredItem]) -> list[int]:
    return [each.version for each in items if isinstance(each, Desired)]


async def test_each_version_is_given_with_what_it_says() -> None:
    server, items = await followed(streaming(snapshot(0), snapshot(7, "i1", "i2")), last=7)

    empty, full = items
    assert isinstance(empty, Desired)
    assert isinstance(full, Desired)
    assert (empty.cursor, empty.version, empty.items, empty.position) == ("e1-0", 0, (), 1)
    assert (full.cursor, full.digest) == ("e1-7", digest_of([instance("i1"), instance("i2")]))
    assert [each.instance_id for each in full.items] == ["i1", "i2"]
    assert full.items[0].spec.variables == {"A": "1", "B": "2"}
    assert [asked.path for asked in server.asked] == ["/v1/nodes/node_1/desired"]


async def test_f29_every_version_is_given_once_wherever_the_stream_is_cut() -> None:
    whole = streaming(snapshot(5, "i1"), snapshot(7, "i1", "i2"), confirmation(7, "i1", "i2"))
    again = streaming(snapshot(7, "i1", "i2"), confirmation(7, "i1", "i2"))
    server = StreamServer(whole)
    size = len(whole(Asked("/", {})).content)
    async with server.client() as client:
        for at in range(0, size, 3):
            server.answers = [cut(whole, at), again]
            items = await take(client.follow_desired("node_1"), lambda each: isinstance(each, Confirmed))
            assert versions(items) in ([7], [5, 7])
            assert items[-1] == Confirmed(7, digest_of([instance("i1"), instance("i2")]), 99)


async def test_what_the_node_knows_is_not_given_again() -> None:
    server, items = await followed(streaming(confirmation(5, "i1"), snapshot(7)), last=7, known="e1-5")

    assert [type(each) for each in items] == [Confirmed, Desired]
    assert server.asked[0].last_event_id == "e1-5"


async def test_a_version_that_was_given_is_not_given_again_and_an_older_one_never() -> None:
    first = streaming(snapshot(7, "i1"), snapshot(7, "i1"), snapshot(5), confirmation(5), ends=True)
    server, items = await followed(first, streaming(snapshot(7, "i1"), snapshot(8)), last=8)

    assert (versions(items), len(items)) == ([7, 8], 2)
    assert server.asked[1].last_event_id == "e1-7"


async def test_the_same_version_is_given_again_if_it_says_something_else() -> None:
    _, items = await followed(streaming(snapshot(7, "i1"), snapshot(7, "i2"), snapshot(8)), last=8)
    assert versions(items) == [7, 7, 8]


async def test_what_has_not_its_digest_is_asked_for_again_all_of_it() -> None:
    wrong = snapshot(7, "i1", digest=digest_of([]))
    server, items = await followed(streaming(snapshot(5), wrong), streaming(snapshot(7, "i1")), last=7)

    assert versions(items) == [5, 7]
    assert [asked.last_event_id for asked in server.asked] == [None, None]


@pytest.mark.parametrize("said", [confirmation(8, "i2"), confirmation(7, "i2")])
async def test_a_change_that_was_missed_does_not_go_unnoticed(said: str) -> None:
    """A bookmark names the version and the digest: whoever has another one is not current, and asks for all of it."""
    server, items = await followed(streaming(snapshot(7, "i1"), said), streaming(snapshot(8, "i1")), last=8)

    assert versions(items) == [7, 8]
    assert not [each for each in items if isinstance(each, Confirmed)]
    assert [asked.last_event_id for asked in server.asked] == [None, None]


async def test_a_version_that_came_to_the_same_is_confirmed_and_gone_on_from() -> None:
    first = streaming(snapshot(7, "i1"), confirmation(9, "i1"), ends=True)
    server, items = await followed(first, streaming(confirmation(9, "i1"), snapshot(10)), last=10)

    assert [(type(each), each.version) for each in items] == [
        (Desired, 7),
        (Confirmed, 9),
        (Confirmed, 9),
        (Desired, 10),
    ]
    assert server.asked[1].last_event_id == "e1-9"


async def test_what_the_node_knew_is_not_confirmed_by_a_later_version() -> None:
    server, items = await followed(streaming(confirmation(9)), streaming(snapshot(9)), last=9, known="e1-7")

    assert versions(items) == [9]
    assert [asked.last_event_id for asked in server.asked] == ["e1-7", None]


@pytest.mark.parametrize("version", [7, 9])
async def test_f29_what_the_node_kept_is_not_confirmed_by_another_digest(version: int) -> None:
    """The view may have been rebuilt meanwhile, and have more in it under the same version."""
    rebuilt = streaming(snapshot(version, "i1", "i2"))
    kept = digest_of([instance("i1")])
    server, items = await followed(
        streaming(confirmation(version, "i1", "i2")), rebuilt, last=version, known="e1-7", digest=kept
    )
    assert versions(items) == [version]
    assert len(items) == 1
    assert [asked.last_event_id for asked in server.asked] == ["e1-7", None]


@pytest.mark.parametrize("version", [7, 9])
async def test_what_the_node_kept_is_confirmed_by_its_digest_and_not_given_again(version: int) -> None:
    first = streaming(snapshot(7, "i1"), confirmation(version, "i1"), ends=True)
    server, items = await followed(
        first, streaming(snapshot(10)), last=10, known="e1-7", digest=digest_of([instance("i1")])
    )
    assert [(type(each), each.version) for each in items] == [(Confirmed, version), (Desired, 10)]
    assert server.asked[1].last_event_id == f"e1-{version}"


async def test_a_confirmation_before_anything_was_given_is_not_believed() -> None:
    server, items = await followed(streaming(confirmation(7)), streaming(snapshot(7)), last=7)
    assert (versions(items), len(server.asked)) == ([7], 2)


@pytest.mark.parametrize(
    "end",
    [
        [streaming(snapshot(7), ends=True), refusing(410, "cursor_expired", Keelson_Epoch="e2")],
        [streaming(snapshot(7), frame("resync", {"epoch": "e2", "reason": "restored"}), ends=True)],
        [streaming(snapshot(7), confirmation(7).replace("e1-", "e2-"))],
    ],
)
async def test_f26_in_another_epoch_what_is_there_is_given_though_its_version_is_older(end: list[Answer]) -> None:
    server, items = await followed(*end, streaming(snapshot(3, epoch="e2"), snapshot(4, epoch="e2")), last=4)

    assert [each.cursor for each in items if isinstance(each, Desired)] == ["e1-7", "e2-3", "e2-4"]
    assert server.asked[-1].last_event_id is None


async def test_f34_a_node_that_may_not_any_more_is_told() -> None:
    server = StreamServer(streaming(snapshot(7), ends=True), refusing(401, "unauthenticated"))
    async with server.client(StreamTimes(retry_s=QUICK.retry_s)) as client:
        with pytest.raises(ProblemError, match="401 unauthenticated"):
            await take(client.follow_desired("node_1"), lambda _: False)
