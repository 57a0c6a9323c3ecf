"""Folding a batch for one projection, up to the first event that it cannot take."""

from collections.abc import Set as AbstractSet
from pathlib import PurePath
from traceback import extract_tb
from typing import Literal

import msgspec

from keelson.events import Envelope, UnknownEventError
from keelson.projector.batch import Batch
from keelson.views import Projection
from keelson.views.fold import Fold
from keelson.views.projection import HandlerError, MissingRowError


class PoisonError(Exception):
    """An event of a page makes changes that cannot be written."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Why a projection does not go on: the event, and what went wrong in words without its data."""

    state: Literal["stopped", "behind_schema"]
    position: int
    event_type: str
    message: str


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """The complete commands before a stop, or the whole batch, folded; `stop` is None if all went well."""

    batch: Batch
    fold: Fold
    stop: Stop | None


def fold_batch(projection: Projection, batch: Batch, skips: AbstractSet[int]) -> Folded:
    """Fold a batch, leaving out the positions that are skipped. Raises nothing of what handlers raise (F18)."""
    fold = Fold(projection)
    for index, envelope in enumerate(batch.envelopes):
        try:
            if projection.listens_to(envelope.type):
                if envelope.position not in skips:
                    fold.add(envelope, batch.event(index))
            else:
                # Whether a newer version of this projection listens to it, this code cannot know.
                batch.require_known(index)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything; the projection stops there
            return fold_until(projection, batch, skips, stop_at(envelope, error))
    return Folded(batch=batch, fold=fold, stop=None)


def fold_until(projection: Projection, batch: Batch, skips: AbstractSet[int], stop: Stop) -> Folded:
    """Fold the commands of a batch that are complete before a stop."""
    before = fold_batch(projection, batch.before(stop.position), skips)
    return Folded(batch=before.batch, fold=before.fold, stop=before.stop or stop)


def stop_at(envelope: Envelope, error: Exception) -> Stop:
    """Say why a projection stops at an event."""
    behind = isinstance(error, UnknownEventError)
    return Stop(
        state="behind_schema" if behind else "stopped",
        position=envelope.position,
        event_type=envelope.type,
        message=describe(error),
    )


def describe(error: Exception) -> str:
    """Say what went wrong, without data: of foreign errors only kind and place, for their text may hold some."""
    if isinstance(error, UnknownEventError | MissingRowError | HandlerError | PoisonError):
        return str(error)
    if isinstance(error, msgspec.MsgspecError):
        _, at, path = str(error).rpartition(" - at ")
        return "the payload does not decode" + (f" at {path.strip('`')}" if at else "")
    *_, innermost = extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {innermost.name} ({PurePath(innermost.filename).name}:{innermost.lineno})"
