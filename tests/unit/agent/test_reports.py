"""The command service comes to know what is so, whatever happened on the way, by transitions that it takes."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from keelson.agent import reports as module
from keelson.agent.contact import Contact
from keelson.agent.reports import Reports
from keelson.client import ClientError, ProblemError, UnreachableError
from keelson.client.commands.instance import Endpoint, ReportStatus
from keelson.command.domain.instance_state import STATUSES
from support.instances import instance_id
from support.waiting import eventually

KEY = instance_id(1)


def report(status: str, key: str = KEY, **fields: Any) -> ReportStatus:
    if status == "failed":
        fields = {"reason_code": "exited", **fields}
    return ReportStatus(instance_id=key, status=status, **fields)  # type: ignore[arg-type]


READY = report("ready", endpoints={"http": Endpoint(host="127.0.0.1", port=31000)})


def problem(status: int, code: str) -> ProblemError:
    return ProblemError(status=status, code=code, detail="", body={}, retry_after_s=None)


@dataclass
class CommandService:
    """Takes reports as the command service does; may be away, before it takes one or after."""

    taken: list[ReportStatus] = field(default_factory=list)
    known: dict[str, ReportStatus] = field(default_factory=dict)
    refused: int = 0
    away: bool = False
    choking_on: str = ""
    choking_with: ClientError | None = None
    chance: random.Random | None = None

    async def send(self, command: ReportStatus, *, reason: str) -> None:
        """Take a report, or be away, or lose the answer."""
        assert reason
        await asyncio.sleep(0)
        if self.choking_with is not None and command.instance_id == self.choking_on:
            raise self.choking_with
        if self.away or self._fails():
            raise UnreachableError("away")
        self._take(command)
        if self._fails():
            raise UnreachableError("the answer was lost")

    def _fails(self) -> bool:
        return self.chance is not None and self.chance.random() < 0.3

    def _take(self, command: ReportStatus) -> None:
        before = self.known.get(command.instance_id)
        if before == command or (before is not None and before.status == command.status == "stopped"):
            return
        status = None if before is None else before.status
        if command.status != status and command.status not in STATUSES[status]:
            self.refused += 1
            raise problem(422, "invalid_transition")
        self.known[command.instance_id] = command
        self.taken.append(command)

    @property
    def statuses(self) -> list[str]:
        """What was taken, in order."""
        return [each.status for each in self.taken]


@asynccontextmanager
async def telling(service: CommandService, contact: Contact | None = None) -> AsyncIterator[Reports]:
    reports = Reports(service, contact or Contact("command"))  # type: ignore[arg-type]
    task = asyncio.create_task(reports.run())
    try:
        yield reports
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(reports: Reports) -> None:
    await eventually(lambda: not reports.pending)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(module, "REFUSED_PAUSE_S", 0.001)


async def test_each_change_is_told_once() -> None:
    service = CommandService()
    async with telling(service) as reports:
        for each in (report("booting"), READY, READY, report("draining"), report("stopped", exit_code=0)):
            reports.tell(each)
            await told(reports)
    assert service.statuses == ["booting", "ready", "draining", "stopped"]
    assert service.refused == 0


async def test_what_is_not_new_is_not_sent() -> None:
    service = CommandService()
    sent = []
    original = service.send

    async def counted(command: ReportStatus, *, reason: str) -> None:
        sent.append(command)
        await original(command, reason=reason)

    service.send = counted  # type: ignore[method-assign]
    async with telling(service) as reports:
        for _ in range(3):
            reports.tell(READY)
            await told(reports)
    assert sent == [READY]


@pytest.mark.parametrize(
    ("before", "after", "way"),
    [
        (["booting", "ready"], ["failed", "booting"], ["failed", "booting"]),
        (["booting", "ready"], ["failed", "booting", "ready"], []),
        (["booting"], ["failed", "booting", "ready"], ["ready"]),
        (["booting", "failed"], ["booting", "ready"], ["booting", "ready"]),
        (["booting", "failed"], ["booting", "ready", "draining"], ["booting", "draining"]),
        (["booting", "ready"], ["draining", "stopped"], ["stopped"]),
    ],
)
async def test_of_an_absence_the_end_is_told_by_a_way_that_is_taken(
    before: list[str], after: list[str], way: list[str]
) -> None:
    service = CommandService()
    async with telling(service) as reports:
        for status in before:
            reports.tell(report(status))
            await told(reports)
        service.away = True
        for status in after:
            reports.tell(report(status, exit_code=7 if status == "failed" else None))
        service.away = False
        await told(reports)
    assert service.statuses == before + way
    assert service.refused == 0
    assert all(each.exit_code == 7 for each in service.taken[len(before) :] if each.status == "failed")


@pytest.mark.parametrize("was", ["booting", "ready", "draining", "failed"])
@pytest.mark.parametrize("is_", ["booting", "ready", "draining", "failed", "stopped"])
async def test_an_agent_that_does_not_know_what_was_told_gets_there_too(was: str, is_: str) -> None:
    service = CommandService(known={KEY: report(was)})
    async with telling(service) as reports:
        reports.tell(report(is_))
        await told(reports)
    assert service.known[KEY].status == is_


async def test_what_has_ended_for_the_command_service_is_let_be() -> None:
    service = CommandService(known={KEY: report("stopped", reason_code="node_lost")})
    async with telling(service) as reports:
        reports.tell(READY)
        await told(reports)
        asked = service.refused
        await asyncio.sleep(0.01)
        assert service.refused == asked
        reports.tell(report("booting", instance_id(2)))
        await told(reports)
    assert service.known[KEY].reason_code == "node_lost"
    assert service.known[instance_id(2)].status == "booting"


@pytest.mark.parametrize(
    ("error", "is_away"),
    [(problem(500, "internal"), False), (problem(503, "unavailable"), True), (UnreachableError("no JSON"), True)],
    ids=repr,
)
async def test_one_that_is_never_taken_holds_up_no_other(
    error: ClientError, is_away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = CommandService(choking_on=KEY, choking_with=error)
    contact = Contact("command")
    lost: list[ClientError] = []
    monkeypatch.setattr(contact, "lost", lost.append)
    with structlog.testing.capture_logs() as log:
        async with telling(service, contact) as reports:
            reports.tell(READY)
            for number in (2, 3):
                reports.tell(report("booting", instance_id(number)))
            await eventually(lambda: reports.pending == [KEY])
            reports.tell(report("ready", instance_id(2)))
            await eventually(lambda: reports.pending == [KEY])
            service.choking_with = None
            await told(reports)
    assert {key: each.status for key, each in service.known.items()} == {
        KEY: "ready",
        instance_id(2): "ready",
        instance_id(3): "booting",
    }
    assert bool(lost) == is_away
    assert [line["event"] for line in log].count("report_failed") == (0 if is_away else 1)


async def test_in_another_epoch_all_is_told_again() -> None:
    service = CommandService()
    async with telling(service) as reports:
        reports.tell(READY)
        await told(reports)
        service.known.clear()
        reports.doubt()
        await told(reports)
    assert service.known[KEY] == READY


async def test_what_is_forgotten_is_not_told() -> None:
    service = CommandService(away=True)
    async with telling(service) as reports:
        reports.tell(READY)
        reports.tell(report("booting", instance_id(2)))
        reports.keep_only({instance_id(2)})
        service.away = False
        await told(reports)
    assert list(service.known) == [instance_id(2)]


# How an instance may go on from each status, as its supervisor tells it.
LIFE = {
    "booting": ("ready", "failed", "draining"),
    "ready": ("failed", "draining"),
    "failed": ("booting", "stopped"),
    "draining": ("stopped",),
}


def live(chance: random.Random, key: str, longest: int) -> Sequence[ReportStatus]:
    life, status = [], "booting"
    for _ in range(chance.randint(1, longest)):
        life.append(report(status, key))
        if status not in LIFE:
            break
        status = chance.choice(LIFE[status])
    return life


async def lead_lives(seed: int) -> None:
    """Let instances live while answers are lost, agents restart, and the service is away; then all must be told."""
    chance = random.Random(seed)
    service = CommandService(chance=chance)
    lives = {key: list(live(chance, key, 12)) for key in map(instance_id, range(1, 4))}
    last = {key: life[-1] for key, life in lives.items()}
    newest: dict[str, ReportStatus] = {}
    while any(lives.values()):
        async with telling(service) as reports:
            for each in newest.values():  # a new agent tells what it finds
                reports.tell(each)
            for _ in range(chance.randint(1, 8)):
                key = chance.choice(list(lives))
                if lives[key]:
                    newest[key] = lives[key].pop(0)
                    reports.tell(newest[key])
                service.away = chance.random() < 0.4
                for _ in range(chance.randint(0, 6)):
                    await asyncio.sleep(0)
            if not any(lives.values()):
                service.away, service.chance = False, None
                await told(reports)
    assert service.known == last, f"seed {seed}"


@pytest.mark.parametrize("seed", range(40))
async def test_through_losses_absences_and_restarts_the_command_service_comes_to_know_what_is_so(seed: int) -> None:
    await lead_lives(seed)


async def test_one_way_alone_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DETOURS", ((),))
    found = 0
    for seed in range(40):
        try:
            await lead_lives(seed)
        except AssertionError:
            found += 1
    assert found, "the planted bug is not seen"
