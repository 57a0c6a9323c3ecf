"""Replicas and rebuilds of the projector on a stage, the log that they follow, and a reader who holds them to it."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from keelson.events import REGISTRY, Event, Ids
from keelson.events.ids import Position
from keelson.events.org import OrgCreated, OrgRenamed
from keelson.events.project import ProjectCreated, ProjectRenamed
from keelson.log.database import UNAVAILABLE, Connection, connect
from keelson.log.decision import NewEvent
from keelson.log.epochs import Epochs
from keelson.log.listen import Listener
from keelson.log.read import read_page
from keelson.log.tail import LOG_CHANNEL
from keelson.projector import checkpoints
from keelson.projector.leases import Leases
from keelson.projector.rebuild import Options, RebuildError, rebuild
from keelson.projector.runner import Runner
from keelson.views import Table, sql
from keelson.views.activity import ACTIVITY
from keelson.views.memory import Memory
from keelson.views.tenancy import TENANCY
from support.database import Cluster
from support.decisions import decide, made_id
from support.interleaving import BOUNDED, Process, Stage, staged
from support.log import append_group, read_epoch
from support.projecting import Rows, connected, rows_of

# One that keeps rows, and one that only adds some: what is applied twice shows in the second at the latest.
PROJECTIONS = {"tenancy": TENANCY, "activity": ACTIVITY}
REPLICAS, REBUILDS = 2, 2
POLL_INTERVAL_S = 1.0
# Longer than any example takes, by the clock that goes on: a lease lapses when it is told to.
LEASE_S = 3600.0
# How many polls everybody has to settle.
PATIENCE = 20

_EMPTY = """
    SET session_replication_role = replica;
    DELETE FROM log.events WHERE position > 1;
    RESET session_replication_role;
    UPDATE log.head SET position = 1;
    DELETE FROM log.claims;
    DELETE FROM log.claim_scopes;
    DELETE FROM ops.leases;
    UPDATE ops.checkpoints SET position = 0, state = 'running', error_position = NULL;
    DELETE FROM views.orgs;
    DELETE FROM views.projects;
    DELETE FROM views.activity;
"""
# Of leases that a transaction holds, time would say the same: nobody can take them before it ends.
_LAPSE = """
    UPDATE ops.leases SET expires_at = clock_timestamp()
    WHERE name IN (SELECT name FROM ops.leases FOR UPDATE SKIP LOCKED)
"""
_STANDING = "SELECT projection, position, state, error_message FROM ops.checkpoints"
_LAPSE_OF_THE_DEAD = "DELETE FROM ops.leases WHERE holder <> ALL ($1::text[]) AND starts_with(holder, 'replica')"


class Notifications(Listener):
    """What a replica's connection that listens would hear, told by hand: delivered, lost, or doubled."""

    def __init__(self) -> None:
        super().__init__("", LOG_CHANNEL)
        self.pending: list[int] = []

    async def run(self) -> None:
        """Say "look now", as after each connection; tell the rest when told to."""
        self._tell("")
        await asyncio.Event().wait()

    def deliver(self, times: int) -> None:
        """Tell all that is pending so many times."""
        for position in self.pending * times:
            self._tell(str(position))
        self.pending.clear()


class Announced:
    """Where checkpoints are announced: the highest of each."""

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}

    async def fetch(self, _query: str, announcements: Sequence[str]) -> list[Any]:
        """Hear announcements."""
        for name, position in (each.split() for each in announcements):
            self.positions[name] = max(self.positions.get(name, 0), int(position))
        return []

    fetchrow = fetchval = fetch


class Replica:
    """A replica: a process that runs the projector's runner, whole."""

    def __init__(self, process: Process, holder: str) -> None:
        self.process = process
        self.holder = holder
        self.notifications = Notifications()

    async def start(self, announced: Announced, poll_interval_s: float) -> None:
        """Run."""
        pool = await self.process.open_pool()
        runner = Runner(
            pool=pool,
            announce_db=announced,
            listener=self.notifications,
            leases=Leases(pool, self.holder, duration_s=LEASE_S),
            epochs=Epochs(),
            page_size=3,
            lagging_page_size=4,
            poll_interval_s=poll_interval_s,
            projections=PROJECTIONS,
        )
        self.process.start(runner.run())


class Followed:
    """The log, and what its projections must hold at each position where a command ends."""

    def __init__(self, connection: Connection, epoch: str) -> None:
        self.connection = connection
        self._epoch = epoch
        self._names = count(1)
        self._seqs: dict[str, int] = {}
        self._memories = {name: Memory(projection) for name, projection in PROJECTIONS.items()}
        self.head = 0
        self.expected: dict[str, dict[int, Rows]] = {
            name: {0: rows_of(memory)} for name, memory in self._memories.items()
        }

    async def append(self, numbers: Sequence[int]) -> int:
        """Append one command, an event for each number: its aggregate is created or renamed. Give the head."""
        events = [self._event(number) for number in numbers]
        await append_group(self.connection, decide(self._epoch, *events))
        await self.follow()
        return self.head

    def _event(self, number: int) -> NewEvent:
        """Make an aggregate's next event: of an organisation for 0, else of one of its projects."""
        org_id = made_id("org", 0)
        name = f"name-{next(self._names)}"
        created: Event = ProjectCreated(name=name) if number else OrgCreated(name=name)
        renamed: Event = ProjectRenamed(name=name) if number else OrgRenamed(name=name)
        aggregate_id = made_id("project", number) if number else org_id
        self._seqs[aggregate_id] = seq = self._seqs.get(aggregate_id, 0) + 1
        ids = Ids(org_id=org_id, project_id=aggregate_id if number else None)
        return NewEvent.of(aggregate_id, seq, ids, created if seq == 1 else renamed)  # type: ignore[arg-type]

    async def follow(self) -> None:
        """Fold what was appended, event by event, by the independent code."""
        page = await read_page(self.connection, Position(self.head), 1000)
        for envelope in page.envelopes:
            event = REGISTRY.decode(envelope.type, envelope.version, envelope.payload)
            for name, memory in self._memories.items():
                memory.apply(envelope, event)
                if envelope.command_end:
                    self.expected[name][envelope.position] = rows_of(memory)
        self.head = page.head


class Reader:
    """Reads the views as the query service does, and holds them against the log."""

    def __init__(self, connection: Connection, followed: Followed) -> None:
        self._connection = connection
        self._followed = followed
        self._seen = dict.fromkeys(PROJECTIONS, 0)

    async def read(self) -> None:
        """Read every table, each with the checkpoint of the same snapshot."""
        for name, projection in PROJECTIONS.items():
            for table in projection.tables:
                start = 0 if table.key == ("position",) else ""
                self._compare(name, table, await self._connection.fetch(_page_of(table), name, start, 1000))

    def _compare(self, name: str, table: Table, rows: Sequence[Any]) -> None:
        checkpoint = rows[0]["checkpoint"]
        assert checkpoint >= self._seen[name], f"the checkpoint of {name} went back"
        self._seen[name] = checkpoint
        assert checkpoint in self._followed.expected[name], f"{name} stands amidst a command"
        found = [tuple(row)[3:] for row in rows if row["found"]]
        assert found == self._followed.expected[name][checkpoint][table.name], f"{table.name} is not what the log says"


def _page_of(table: Table) -> str:
    return sql.select_page(table, (), deleted=True)


class ProjectorStage:
    """A stage with the projector's processes, which begin anew with each example."""

    def __init__(self, stage: Stage, *, poll_interval_s: float) -> None:
        self.stage = stage
        self._poll_interval_s = poll_interval_s
        self._holders = count(1)
        self.replicas: list[Replica] = []
        self.rebuilds: list[Process] = []

    async def begin(self) -> None:
        """Empty the log and the views, and start two replicas and a reader."""
        await self._empty()
        appending = await connect(self.stage.database.command_dsn, **BOUNDED)
        self.log = Followed(appending, await read_epoch(appending))
        await self.log.follow()
        self.announced = Announced()
        self._reading = self.stage.add(self.stage.database.query_dsn)
        self._reader = Reader(await self._reading.connect(), self.log)
        self.replicas = [await self._start_replica() for _ in range(REPLICAS)]

    async def _empty(self) -> None:
        async with connected(self.stage.database.projector_dsn) as projector:
            for projection in PROJECTIONS.values():
                await checkpoints.begin(projector, projection)
        await self.stage.admin.execute(_EMPTY)

    async def end(self) -> None:
        """Kill every process."""
        self.log.connection.terminate()
        self.rebuilds.clear()
        await self.stage.clear()

    async def _start_replica(self) -> Replica:
        process = self.stage.add(self.stage.database.projector_dsn)
        replica = Replica(process, f"replica {next(self._holders)}")
        await replica.start(self.announced, self._poll_interval_s)
        await self.stage.settle()
        return replica

    @property
    def processes(self) -> Sequence[Process]:
        """Everybody who writes views."""
        return [*(replica.process for replica in self.replicas), *self.rebuilds]

    async def append(self, numbers: Sequence[int]) -> None:
        """Append a command; its notification is on its way."""
        position = await self.log.append(numbers)
        for replica in self.replicas:
            replica.notifications.pending.append(position)

    async def start_rebuild(self, name: str) -> None:
        """Begin another rebuild of a projection, unless there are enough."""
        if len(self.rebuilds) < REBUILDS:
            process = self.stage.add(self.stage.database.projector_dsn)
            pool = await process.open_pool()
            leases = Leases(pool, f"rebuild {next(self._holders)}", duration_s=LEASE_S)
            options = Options(page_size=3, lease_wait_s=0)
            process.start(rebuild(PROJECTIONS[name], pool, leases, lambda _: None, options))
            self.rebuilds.append(process)
            await self.stage.settle()

    async def crash(self, process: Process) -> None:
        """Kill a process; a replica is started anew."""
        await self.stage.kill(process)
        if process in self.rebuilds:
            self.rebuilds.remove(process)
        else:
            at = [replica.process for replica in self.replicas].index(process)
            self.replicas[at] = await self._start_replica()

    async def lapse(self) -> None:
        """Let every lease lapse, of which no holder hears."""
        await self.stage.admin.execute(_LAPSE)

    async def check(self) -> None:
        """Hold everything that can be seen against what is promised."""
        for replica in self.replicas:
            if replica.process.is_over:
                raise AssertionError("a replica has ended") from replica.process.failure()
        for process in [each for each in self.rebuilds if each.is_over]:
            self.rebuilds.remove(process)
            _check_end(process)
        for name, position, state, why in await self.stage.admin.fetch(_STANDING):
            assert state == "running", f"{name} has stopped: {why}"
            assert self.announced.positions.get(name, 0) <= position, f"{name} was announced too early"
        await self._read()

    async def _read(self) -> None:
        """Read the views, unless a reading waits for a swap to end."""
        if self._reading.is_over:
            self._reading.start(self._reader.read())
            await self.stage.settle()
        while self._reading.waiting:
            await self.stage.step(self._reading)
        if self._reading.is_over:
            self._reading.result()

    async def settle_all(self) -> None:
        """Let everybody go on, without any notification; all must come to the head. Leases of the dead lapse."""
        await self.stage.admin.execute(_LAPSE_OF_THE_DEAD, [replica.holder for replica in self.replicas])
        for _ in range(PATIENCE):
            while waiting := [process for process in self.processes if process.waiting]:
                for process in waiting:
                    await self.stage.step(process)
            await self.check()
            if not self.rebuilds and await self._is_at_head():
                return
            await self.stage.pass_time(POLL_INTERVAL_S)
        raise AssertionError("not all projections came to the head")

    async def _is_at_head(self) -> bool:
        rows = await self.stage.admin.fetch(_STANDING)
        return all(position == self.log.head for _, position, _, _ in rows)


def _check_end(process: Process) -> None:
    """Accept what may end a rebuild: it has swapped, another has its lease, or its connections were cut."""
    failure = process.failure()
    if failure is not None and not isinstance(failure, UNAVAILABLE):
        is_fine = str(failure).endswith(("by another process", "has taken over", "for too long"))
        assert isinstance(failure, RebuildError) and is_fine, repr(failure)  # noqa: PT018 - both say one thing


@contextmanager
def projector_staged(cluster: Cluster, *, poll_interval_s: float = POLL_INTERVAL_S) -> Iterator[ProjectorStage]:
    """Lend a stage of the projector with a database of its own."""
    with staged(cluster) as stage:
        yield ProjectorStage(stage, poll_interval_s=poll_interval_s)
