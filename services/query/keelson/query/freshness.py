"""Reading one's own writes: a read that names a position waits, bounded, until its view reflects it."""

import msgspec
from starlette.requests import Request

from keelson.log.database import Database
from keelson.log.read import read_head
from keelson.query.parameters import ReadParameters
from keelson.query.places import Place, read_place
from keelson.service.checkpoints import Checkpoints
from keelson.service.headers import read_wait_s
from keelson.service.problems import Problem

DEFAULT_WAIT_S = 5


class Floor(msgspec.Struct, frozen=True):
    """The position that an answer must reflect at least (0: any), in which epoch (None: in whichever it is answered).

    `preferred_s` is the wait that the client preferred.
    """

    position: int = 0
    epoch: str | None = None
    preferred_s: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say what was applied."""
        return {} if self.preferred_s is None else {"Preference-Applied": f"wait={self.preferred_s}"}

    def check(self, reached: int, epoch: str | None, *, stopped: bool = False) -> None:
        """Raise Problem `not_yet` if what was read does not reflect the position.

        `cursor_expired` if it is of another epoch: then it never will, whatever it has reached (F26).
        """
        require_epoch(self.epoch, epoch)
        if reached >= self.position:
            return
        detail = f"Position {self.position} is not reflected yet; position {reached} is"
        raise Problem(
            "not_yet",
            f"{detail}, and the projection is stopped" if stopped else detail,
            headers={"Keelson-Position": str(reached), **self.headers},
            position=reached,
        )


class Freshness:
    """Waits for views, on what the process is told of checkpoints; it asks the database only about foreign epochs."""

    def __init__(self, db: Database, checkpoints: Checkpoints) -> None:
        self._db = db
        self._checkpoints = checkpoints

    async def await_view(self, request: Request, parameters: ReadParameters, projection: str) -> Floor:
        """Wait until the projection has reached `min_position`, or the wait is over; the answer then tells which.

        Raises Problem `cursor_expired` for a position of another epoch.
        """
        place = await self._read_place(parameters)
        if place is None:
            return Floor()
        floor = Floor(place.position, place.epoch, read_wait_s(request.scope["headers"]))
        wait_s = DEFAULT_WAIT_S if floor.preferred_s is None else floor.preferred_s
        await self._checkpoints.wait_for((projection,), place.position, wait_s)
        return floor

    def check(self, floor: Floor, projection: str, reached: int, epoch: str | None = None) -> None:
        """Raise Problem `not_yet` if the rows that were read do not reflect the floor, as of their own snapshot.

        `cursor_expired` if their epoch is another; the one that the process knows, if theirs was not read. Raises
        LineageError for rows of an epoch that has ended: they came from a server that was replaced meanwhile.
        """
        if epoch is not None:
            self._checkpoints.epoch.learn(epoch)
        stopped = self._checkpoints.state_of(projection) == "stopped"
        floor.check(reached, self._checkpoints.epoch.name, stopped=stopped)

    async def _read_place(self, parameters: ReadParameters) -> Place | None:
        place = read_place(parameters.min_position) if parameters.min_position is not None else None
        if place is not None and place.epoch not in (None, self._checkpoints.epoch.name):
            require_epoch(place.epoch, (await read_head(self._db)).epoch)
        return place


def require_epoch(asked: str | None, epoch: str | None) -> None:
    """Raise Problem `cursor_expired` for a place of another epoch than the log's; None is of any (F26, F30)."""
    if asked not in (None, epoch):
        raise Problem("cursor_expired", f"The position belongs to epoch {asked}; the log's is {epoch}")
