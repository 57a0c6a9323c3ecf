"""Writers, readers and a listener of the log, their statements interleaved; what comes of it is what the model says.

Each writer is a session whose BEGIN, append and COMMIT are steps of their own, so that it can hold the log's lock while
others wait for it, roll back, die at any point, or never hear what became of its commit. Readers read pages meanwhile.
"""

import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from keelson.events.ids import Position
from keelson.log.database import Connection, connect
from keelson.log.decision import Decision, Outcome, TakenKey
from keelson.log.group import Group
from keelson.log.read import Page, read_head, read_page
from keelson.log.tail import LOG_CHANNEL
from support.database import Cluster
from support.interleaving import BOUNDED, Gated, Process, Stage, staged
from support.log import append_group, plant, read_epoch
from support.log_model import STEPS, Free, Model, Step, assert_same

WRITERS, READERS = 3, 2
# How many times as many examples as usual.
TIMES = int(os.environ.get("KEELSON_TEST_TIMES", "1"))

Reading = Callable[[Connection, Position, int], Coroutine[Any, Any, Page]]
Submitted = list[tuple[Decision, list[Free | TakenKey]]]

_writers = st.integers(0, WRITERS - 1)
_statements = st.integers(0, 3)
_readers = st.integers(0, READERS - 1)


class _AbortedError(Exception):
    """The writer thinks better of it."""


class Session:
    """A writer's or a reader's: a process with one connection, and what it is at."""

    def __init__(self, process: Process, connection: Gated) -> None:
        self.process = process
        self.connection = connection
        self.submitted: Submitted = []
        self.outcomes: list[Outcome] = []
        # Of a reader: where it is, what it asked for, and how many heads there had been when it did.
        self.after, self.limit, self.heads = Position(0), 0, 0

    async def write(self, *, aborts: bool) -> None:
        """Append what is submitted, in a transaction, so that others come between."""
        async with self.connection.transaction():
            self.outcomes = await append_group(self.connection, *(decision for decision, _ in self.submitted))
            if aborts:
                raise _AbortedError


class Log:
    """The log under test: its sessions, which last as long as they live, and what its listener heard."""

    def __init__(self, stage: Stage, listener: Connection, read: Reading, before_each: str) -> None:
        self.stage = stage
        self.listener = listener
        self.read = read
        self._before_each = before_each
        self.heard: list[str] = []
        self.examples = count(1)
        self._sessions: dict[tuple[str, int], Session] = {}

    async def session(self, kind: str, number: int) -> Session:
        """Give a session, a new one if the last has died."""
        key = (kind, number)
        if key not in self._sessions:
            process = self.stage.add(self.stage.database.command_dsn, plan_cache_mode="force_generic_plan")
            self._sessions[key] = Session(process, await process.connect())
        return self._sessions[key]

    async def kill(self, session: Session) -> None:
        """End a session as it is."""
        self._sessions = {key: each for key, each in self._sessions.items() if each is not session}
        await self.stage.kill(session.process)

    async def prepare(self) -> None:
        """Let no example leave anything to the next."""
        await self.stage.admin.execute(self._before_each)
        await self.listen()

    async def clear(self) -> None:
        """End all sessions."""
        self._sessions.clear()
        await self.stage.clear()

    async def listen(self) -> list[str]:
        """Give what was heard since it was last asked for; a server tells what it has to tell before it answers."""
        for _ in range(2):
            await self.listener.fetchval("SELECT 1")
        heard, self.heard = self.heard, []
        return heard

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """Hear a notification."""
        self.heard.append(str(payload))


class Interleavings(RuleBasedStateMachine):
    """Steps of writers and readers; the model follows commit by commit."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._numbers = count(1)
        self._failed = False
        self._asked: Submitted = []
        self._do(self._begin())

    async def _begin(self) -> None:
        await self._log.prepare()
        head = await read_head(self._log.listener)
        self._before = head.position
        self._model = Model(await read_epoch(self._log.listener), f"e{next(self._log.examples)}", head.position)
        self._heads = [head.position]
        for number in range(READERS):
            (await self._log.session("reader", number)).after = head.position

    def _do(self, work: Any) -> None:
        self._failed = True
        self._log.stage.run(work)
        self._failed = False

    @rule(
        writer=_writers,
        steps=st.lists(STEPS, min_size=1, max_size=2),
        statements=_statements,
        aborts=st.sampled_from([False, False, False, True]),
    )
    def submit(self, writer: int, steps: list[Step], statements: int, *, aborts: bool) -> None:
        """Begin to append a group, unless the writer is at another."""
        decided = [self._model.decide(step, next(self._numbers)) for step in steps]
        group = Group()
        admitted = [each for each in decided if group.admit(each[0])]
        self._do(self._submit(writer, admitted, statements, aborts=aborts))

    @rule(writer=_writers, number=st.integers(0, 4), statements=_statements)
    def submit_again(self, writer: int, number: int, statements: int) -> None:
        """Ask once more for what was asked before, as one does who got no answer."""
        if self._asked:
            self._do(self._submit(writer, [self._asked[-1 - number % len(self._asked)]], statements))

    @rule(writer=_writers, other=st.integers(1, WRITERS - 1), step=STEPS, statements=_statements)
    def submit_twice(self, writer: int, other: int, step: Step, statements: int) -> None:
        """Ask for one thing by two writers at once, as one does who got no answer in time."""
        decided = [self._model.decide(step, next(self._numbers))]
        self._do(self._submit(writer, decided, 2))
        self._do(self._submit((writer + other) % WRITERS, decided, statements))

    async def _submit(self, number: int, submitted: Submitted, statements: int, *, aborts: bool = False) -> None:
        writer = await self._log.session("writer", number)
        if writer.process.is_over:
            writer.submitted = submitted
            self._asked += submitted
            writer.process.start(writer.write(aborts=aborts))
            await self._log.stage.settle()
            await self._go_on(writer, statements)

    @rule(writer=_writers, statements=_statements)
    def write(self, writer: int, statements: int) -> None:
        """Let a writer go on."""
        self._do(self._write(writer, statements))

    async def _write(self, number: int, statements: int) -> None:
        await self._go_on(await self._log.session("writer", number), statements)

    async def _go_on(self, writer: Session, statements: int, *, lose_reply: bool = False) -> None:
        for _ in range(statements):
            if writer.process.waiting:
                query = await self._log.stage.step(writer.process, lose_reply=lose_reply)
                if query.startswith(("COMMIT", "ROLLBACK")):
                    await self._ended(writer, committed=query.startswith("COMMIT"))
        if writer.process.is_over and writer.submitted:
            writer.submitted = []
            with suppress(_AbortedError, *([ConnectionError, asyncpg.InterfaceError] if lose_reply else [])):
                writer.process.result()

    @rule(writer=_writers, lose_reply=st.booleans())
    def crash(self, writer: int, *, lose_reply: bool) -> None:
        """Let a writer die in the middle; or the database do one thing more for it, of which it never hears."""
        self._do(self._crash(writer, lose_reply=lose_reply))

    async def _crash(self, number: int, *, lose_reply: bool) -> None:
        writer = await self._log.session("writer", number)
        if not writer.process.is_over:
            if lose_reply:
                await self._go_on(writer, 1, lose_reply=True)
            await self._log.kill(writer)
            assert await self._log.listen() == [], "what was never committed was announced"

    async def _ended(self, writer: Session, *, committed: bool) -> None:
        """Compare what a writer was told, and what was announced, with what the model says at this point."""
        before = self._model.position
        if committed:
            decisions, changes = zip(*writer.submitted, strict=True)
            assert self._model.append(list(decisions), list(changes)) == writer.outcomes
        heard = await self._log.listen()
        assert heard == ([str(self._model.position)] if self._model.position > before else [])
        for position in map(int, heard):
            self._heads.append(Position(position))
            assert (await read_page(self._log.listener, Position(position - 1), 1)).head >= position

    @rule(reader=_readers, limit=st.integers(1, 6), statements=st.integers(0, 1))
    def read(self, reader: int, limit: int, statements: int) -> None:
        """Ask for a page, unless the reader has asked already; and let it go on."""
        self._do(self._read(reader, limit, statements))

    async def _read(self, number: int, limit: int, statements: int) -> None:
        reader = await self._log.session("reader", number)
        if not reader.process.waiting:
            reader.limit, reader.heads = limit, len(self._heads)
            reader.process.start(self._log.read(reader.connection, reader.after, limit))
            await self._log.stage.settle()
        for _ in range(statements):
            if reader.process.waiting:
                await self._log.stage.step(reader.process)
        if reader.process.is_over:
            self._compare(reader, reader.process.result())

    def _compare(self, reader: Session, page: Page) -> None:
        """Check that a page is what some moment since it was asked for had to give; and go on after it."""
        assert page.head in self._heads[reader.heads - 1 :], "no head of that time"
        end = self._end_of_page(reader.after + reader.limit, page.head)
        assert [each.position for each in page.envelopes] == list(range(reader.after + 1, end + 1)), (
            "skipped or doubled"
        )
        read = [(each.aggregate_id, each.seq, each.command_id) for each in page.envelopes]
        assert read == self._model.events[reader.after - self._before : end - self._before]
        reader.after = Position(end)

    def _end_of_page(self, wanted: int, head: int) -> int:
        """Give where the command ends that a page's limit falls in."""
        commands = [command_id for _, _, command_id in self._model.events]
        at = max(min(wanted, head) - self._before, 0)
        while 0 < at < len(commands) and commands[at] == commands[at - 1]:
            at += 1
        return self._before + at

    def teardown(self) -> None:
        """End well, if all went well so far; what went wrong leaves nobody behind."""
        try:
            if not self._failed:
                self._do(self._finish())
        finally:
            if self._failed:
                self._log.stage.run(self._log.clear())

    async def _finish(self) -> None:
        """Let everybody end what they are at; then the log holds what the model holds, and readers have read it all."""
        for _ in range(WRITERS + 1):  # a writer waits for the others, and each has three steps
            for number in range(WRITERS):
                await self._write(number, 3)
        for number in range(READERS):
            for _ in range(2):  # what it asked for before, and all the rest
                await self._read(number, 10_000, 9)
            assert (await self._log.session("reader", number)).after == self._model.position
        await assert_same(self._log.stage.admin, self._model, self._before)


@contextmanager
def _logging(
    cluster: Cluster, read: Reading = read_page, planted: Sequence[tuple[str, str]] = (), before_each: str = "SELECT 1"
) -> Iterator[Log]:
    with staged(cluster) as stage:
        if planted:
            stage.run(plant(stage.database.admin_dsn, "append_v2", *planted))
        listener = stage.run(connect(stage.database.projector_dsn, **BOUNDED))
        log = Log(stage, listener, read, before_each)
        stage.run(listener.add_listener(LOG_CHANNEL, log.hear))
        try:
            yield log
        finally:
            listener.terminate()


def _run(log: Log, **options: Any) -> None:
    chosen = settings(
        deadline=None, suppress_health_check=list(HealthCheck), database=None, stateful_step_count=40, **options
    )
    run_state_machine_as_test(lambda: Interleavings(log), settings=chosen)  # type: ignore[arg-type]


def test_whatever_interleaves_the_log_does_what_its_model_does(cluster: Cluster) -> None:
    with _logging(cluster) as log:
        _run(log, max_examples=60 * TIMES)


AS_A_SEQUENCE = """
    CREATE SEQUENCE IF NOT EXISTS log.planted;
    GRANT USAGE ON SEQUENCE log.planted TO PUBLIC;
    SELECT setval('log.planted', position) FROM log.head;
"""
LOCK = "SELECT * INTO STRICT h FROM log.head FOR UPDATE;"
UNLOCKED = LOCK.replace(" FOR UPDATE", "")
BUGS = {
    "positions from a sequence, without the lock": [
        (LOCK, f"{UNLOCKED} h.position := nextval('log.planted') - 1;"),
        ("SET position = h.position + appended", "SET position = greatest(position, h.position + appended)"),
    ],
    "keys looked up before the lock": [(LOCK, UNLOCKED), ("-- The read sets.", LOCK)],
    "read sets checked before the lock": [(LOCK, UNLOCKED), ("-- Keys that another holds", f"{LOCK} --")],
    "another position announced": [("(h.position + appended)::text", "(h.position + appended + 1)::text")],
}


FOUND = (AssertionError, asyncpg.UniqueViolationError)


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_of_the_append_are_found(cluster: Cluster, bug: str) -> None:
    with _logging(cluster, planted=BUGS[bug], before_each=AS_A_SEQUENCE) as log, pytest.raises(FOUND):
        _run(log, max_examples=300, phases=[Phase.generate], derandomize=True)


async def head_first(connection: Connection, after: Position, limit: int) -> Page:
    """Planted: takes the head, then the page."""
    head = await read_head(connection)
    page = await read_page(connection, after, limit)
    return Page(page.envelopes, head.position, head.epoch)


async def page_first(connection: Connection, after: Position, limit: int) -> Page:
    """Planted: takes the page, then the head."""
    page = await read_page(connection, after, limit)
    head = await read_head(connection)
    return Page(page.envelopes, head.position, head.epoch)


@pytest.mark.parametrize("read", [head_first, page_first])
def test_planted_f3_a_reader_that_takes_head_and_page_in_two_statements_is_found(
    cluster: Cluster, read: Reading
) -> None:
    with _logging(cluster, read) as log, pytest.raises(AssertionError):
        _run(log, max_examples=300, phases=[Phase.generate], derandomize=True)
