"""Watching desired state: looking at it again when an event of the log may have changed it, and at no other time."""

import msgspec

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log.read import Filter, read_head
from keelson.query.confinement import Reach
from keelson.query.desired.snapshots import Reading, Snapshots
from keelson.query.feed.events import require_within
from keelson.query.feed.feed import Feed
from keelson.query.feed.hub import Subscription
from keelson.query.places import Place
from keelson.service.checkpoints import Checkpoints
from keelson.service.problems import Problem, unavailable

# How long one look waits for the view, before its stream says that it is alive, if it is time for that.
_VIEW_WAIT_S = 0.5
# The view is looked after this often where it does not go on.
_VIEW_RETRY_S = 0.2


class Subject(msgspec.Struct, frozen=True):
    """What is watched: a key of a view. Events of these aggregates may change it, and of this node, if one is named."""

    snapshots: Snapshots
    key: str
    reach: Reach
    aggregate_types: frozenset[str]
    node_id: str | None = None

    @property
    def sought(self) -> Filter:
        """What matches all events that may change it, and others."""
        return Filter(node_id=self.node_id)

    def concerns(self, envelope: Envelope) -> bool:
        """Whether an event may change it."""
        return envelope.aggregate_type in self.aggregate_types and self.node_id in (None, envelope.node_id)


class Watching:
    """One client's place: which events it has heard of, and how many of them are in what it was shown.

    An event is heard of in the log, and shown by a view, which is behind the log: so the last event that may have
    changed something is kept (`_wanted`) until the view has reached it. What is waited for is the first one that was
    not shown (`_next`): a view that lags never reaches the last one while others come. Nothing is missed between the
    first look and the first event that is heard of: what the first look did not reflect is looked for in the log (list,
    then watch).
    """

    def __init__(self, feed: Feed, checkpoints: Checkpoints, subject: Subject) -> None:
        self._hub = feed.hub
        self._feed = feed
        self._checkpoints = checkpoints
        self._subject = subject
        self._subscription: Subscription
        self._wanted = 0
        self._next = 0
        self._heard = 0
        self.epoch = ""
        self.reading: Reading

    async def begin(self, subscription: Subscription, after: Place | None, at_least: int = 0) -> None:
        """Take a first look, and want what the position `at_least` has.

        Raises Problem for a place of another epoch or beyond the head, and for what is not there.
        """
        self._subscription = subscription
        self.epoch = await self._feed.require_begun()
        await self._require_within(after)
        self._board = self._subject.snapshots.board(self.epoch, self._subject.key, self._subject.reach)
        # A client may know of a position before the log has arrived there in this replica.
        self.reading = await self._board.read(max(self._hub.end, at_least))
        self._heard = self.reading.position
        known = at_least if after is None else max(at_least, after.position)
        self._want(known, known)  # it may know more than the view does
        if self.reading.snapshot is None and self.reading.position >= at_least:
            headers = {"Keelson-Position": str(self.reading.position)}
            raise Problem("not_found", "There is none with this id", headers=headers)

    @property
    def is_current(self) -> bool:
        """Whether what was read reflects all that was heard of."""
        return self._wanted <= self.reading.position

    @property
    def confirmed(self) -> int:
        """The position as of which what was read is what should be."""
        return max(self._heard, self.reading.position) if self.is_current else self.reading.position

    async def look(self) -> bool:
        """Read again if anything that was heard of may have changed it; give whether any of that was read.

        What was read may be behind the rest of it, as its position says. Waits for the view for a fraction of a second.
        Raises what the database raises when it is away.
        """
        self.hear(0)
        if self.is_current:
            return False
        projection = self._subject.snapshots.projection
        if not await self._checkpoints.wait_for((projection,), self._next, _VIEW_WAIT_S):
            return False
        try:
            reading = await self._board.read(self._next)
        except Problem as problem:
            # The view is being exchanged: a matter of time, as is a database that is away.
            raise ConnectionError(problem.detail) from problem
        if reading.position < self._next:
            return False  # the view is not where it was said to be
        self.reading, self._next = reading, reading.position + 1
        return True

    async def wait(self, timeout_s: float) -> None:
        """Sleep until there may be something to read."""
        if self.is_current:
            self.hear(await self._subscription.wait(Position(self._heard), timeout_s))
        else:
            await self._subscription.pause(min(timeout_s, _VIEW_RETRY_S))

    def hear(self, quiet_to: int) -> None:
        """Hear of what has arrived, of which nothing is of interest up to a position.

        What is not remembered any more may have been anything.
        """
        self._heard = max(self._heard, quiet_to)
        end, ring = self._hub.end, self._hub.ring
        if self._heard < ring.start:
            self._want(self.confirmed + 1, end)
        elif self._heard < end:
            for entry in ring.after(Position(self._heard), end - self._heard):
                if self._subject.concerns(entry.envelope):
                    self._want(entry.envelope.position, entry.envelope.position)
        self._heard = max(self._heard, end)

    def _want(self, first: int, last: int) -> None:
        """Have events shown, of which nothing before the first was heard of since all that had been was shown."""
        if self.is_current:
            self._next = first
        self._wanted = max(self._wanted, last)

    async def _require_within(self, after: Place | None) -> None:
        """Refuse a place of another epoch or beyond the head, after looking in the database (F30)."""
        if after is None or (after.is_of(self.epoch) and after.position <= self._hub.end):
            return
        head = await read_head(self._feed.db)
        require_within(after, head.epoch, head.position)
        if head.epoch != self.epoch:
            raise unavailable("Another epoch has just begun")
