"""The database's time, as far as it can be told without a clock of the calendar."""

from collections.abc import Callable
from datetime import datetime, timedelta


class DatabaseTime:
    """What time it is at least for the database, by which `recorded_at` of events goes.

    The latest time that the database was seen to tell, and what has passed since by the monotonic clock. So a scheduler
    that starts again goes on counting where it was, and no jump of this machine's clock moves it.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told: datetime | None = None
        self._told_at = 0.0

    def learn(self, told: datetime | None) -> None:
        """Take in a time that the database told."""
        now = self.now
        if told is not None and (now is None or told > now):
            self._told, self._told_at = told, self._monotonic()

    @property
    def now(self) -> datetime | None:
        """The time; None before any was told."""
        if self._told is None:
            return None
        return self._told + timedelta(seconds=self._monotonic() - self._told_at)
