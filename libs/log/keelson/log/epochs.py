"""The epochs that a process has seen, and entering the log's by a new connection before it is used (ADR 17, F26)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import asyncpg
import structlog

from keelson.log.queries import load

log = structlog.get_logger()

_ENTER_LOG = load(__file__, "enter_log")
_READ_ENDED_EPOCHS = load(__file__, "read_ended_epochs")

# What a database says in which there is no log, or none of this version.
_NO_LOG = (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError)


class LineageError(ConnectionError):
    """What was connected to cannot be worked with: it is a standby, no log, or an epoch that has ended.

    To callers it is like a database that cannot be reached. The text may be shown to anybody.
    """


class Epochs:
    """The log's epoch as this process knows it, and those that have ended; one object for all its connections.

    An epoch has ended when this process saw it end, or the log that it entered says so. It never comes back: what still
    names it is a server that was replaced, or a copy of one, and is refused. Whatever was kept of an epoch is void with
    it, and forgotten by whoever asked to be told.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._ended: set[str] = set()
        self._listeners: list[Callable[[str], None]] = []

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call this with the epoch's name whenever it becomes known or another. It must not raise."""
        self._listeners.append(callback)

    def refuse_ended(self, name: str) -> None:
        """Raise LineageError for an epoch that has ended."""
        if name in self._ended:
            raise LineageError("the log is in an epoch that has ended: a server that was replaced, or a plain copy")

    def learn(self, name: str, ended: Collection[str] = ()) -> None:
        """Take what the log says to be its epoch, and which have ended; cheap if it is the same.

        Raises LineageError for one that has ended, and believes nothing else of who says it.
        """
        self.refuse_ended(name)
        self._ended.update(each for each in ended if each != name)
        if name == self.name:
            return
        if self.name is not None:
            self._ended.add(self.name)
            log.warning("epoch_changed", epoch=name, previous=self.name)
        self.name = name
        for callback in self._listeners:
            callback(name)


async def enter_log(
    connection: "asyncpg.Connection[asyncpg.Record]",
    epochs: Epochs,
    settings: Mapping[str, str],
    *,
    found_by: str,
    standby: bool,
) -> str:
    """Set a new session's settings and give the log's epoch, renewed if the lineage is another; two round trips.

    Two more where the epoch is not the one that is known: the log is asked which have ended. A process that has seen
    the successor alone would take the server that it replaced for the next, and refuse the successor from then on.

    `standby` says whether a server in recovery will do: it answers in the epoch that it was sent last. Raises
    LineageError, after which the connection must not be used, and what the server says.
    """
    try:
        row: Any = await connection.fetchrow(_ENTER_LOG, list(settings), list(settings.values()), found_by)
    except _NO_LOG:
        raise LineageError("there is no log, or one of an older version: migrations are missing") from None
    if row["standby"] and not standby:
        raise LineageError("the server is a standby: nothing can be written there until it is promoted")
    if row["epoch"] is None:
        raise LineageError("the log has no head: migrate the database first")
    if row["epoch"] != epochs.name:
        epochs.learn(row["epoch"], await connection.fetchval(_READ_ENDED_EPOCHS))
    return str(row["epoch"])
