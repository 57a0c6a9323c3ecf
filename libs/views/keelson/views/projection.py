"""A projection: the tables that are read together, and the pure functions that keep them."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from keelson.events import Envelope, Event
from keelson.views.changes import Change, Patch, Put, Replace
from keelson.views.table import DerivedView, Key, Relation, Table

E = TypeVar("E", bound=Event)
Handler = Callable[[Envelope, E], Iterable[Change]]


_NOWHERE = (None, None)


class HandlerError(Exception):
    """A handler said what no handler may say: a defect of its projection, and poison where it shows."""


class MissingRowError(Exception):
    """A patch of a row that there is not."""

    def __init__(self, table: Table, key: Key) -> None:
        super().__init__(f"{table.name} has no row {'/'.join(map(str, key))}")
        self.table = table
        self.key = key


class Projection:
    """Turns events into changes of the tables that it owns.

    Handlers are pure: no clock, no randomness, no reading of rows; the same event gives the same changes for ever, so
    the same handlers run live, in a rebuild, in verification and in memory. `derived` are SQL views over its tables.
    `version` is raised whenever a handler, a table or a derived view changes; a projection whose stored version differs
    waits for a rebuild.
    """

    def __init__(
        self, name: str, *, version: int, tables: tuple[Table, ...], derived: tuple[DerivedView, ...] = ()
    ) -> None:
        self.name = name
        self.version = version
        self.tables = tables
        self.derived = derived
        self._own = {table.aggregate: table for table in tables if table.aggregate is not None}
        self._handlers: dict[str, Handler[Any]] = {}
        self._catch_all: Handler[Any] | None = None
        self._routes: dict[str, tuple[Handler[Any] | None, Table | None]] = {}

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All that it owns, in an order in which it can be made: tables, and what is derived from them."""
        return (*self.tables, *self.derived)

    def on(self, event_class: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Register the handler of an event, in its newest version; `Event` itself means every event."""

        def register(handler: Handler[E]) -> Handler[E]:
            self._routes.clear()
            if event_class is Event:
                self._catch_all = handler
            elif self._handlers.setdefault(event_class.event_type, handler) is not handler:
                raise HandlerError(f"{self.name} has two handlers of {event_class.event_type}")
            return handler

        return register

    def listens_to(self, event_type: str) -> bool:
        """Whether events of this type change anything here."""
        return (self._routes.get(event_type) or self._route(event_type)) != _NOWHERE

    def changes(self, envelope: Envelope, event: Event) -> list[Change]:
        """Give what an event changes, in order. Raises whatever the handler raises, and HandlerError.

        The aggregate's own row moves even when the handler leaves it alone: by a patch of no fields.
        """
        handler, own = self._routes.get(envelope.type) or self._route(envelope.type)
        changes = list(handler(envelope, event)) if handler is not None else []
        touched = False
        for change in changes:
            if change.table.aggregate is not None:
                _check_own(envelope, change)
                touched = touched or change.table is own
        if own is not None and not touched:
            changes.append(Patch(own, (envelope.aggregate_id,), {}))
        return changes

    def _route(self, event_type: str) -> tuple[Handler[Any] | None, Table | None]:
        """Find who handles a type of events, and the table of its aggregate's own row; remembered per type."""
        route = self._handlers.get(event_type, self._catch_all), self._own.get(event_type.partition(".")[0])
        self._routes[event_type] = route
        return route


def _check_own(envelope: Envelope, change: Change) -> None:
    """Refuse a change of another aggregate's own row: its resource_version would no longer be its seq."""
    if isinstance(change, Replace):
        raise HandlerError(f"{envelope.type} replaces rows of {change.table.name}, which are aggregates' own")
    key = (change.fields[change.table.key[0]],) if isinstance(change, Put) else change.key
    if key != (envelope.aggregate_id,):
        raise HandlerError(f"{envelope.type} changes the row of another aggregate in {change.table.name}")
