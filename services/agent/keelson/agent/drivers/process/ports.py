"""Ports of the host for the ports of instances."""

import random
import socket
from collections.abc import Iterable, Mapping
from itertools import chain

# Below those that the kernel gives to outgoing connections (32768 and up), so that none of these takes one in between.
_LOWEST, _HIGHEST = 20_000, 32_767


class NoPortError(Exception):
    """No port is free."""


class Ports:
    """Gives out ports that nothing listens on; none twice before it was given back.

    Another program, such as another agent on this machine, may take one in the moment before the instance does. Then
    that fails, and gets another when it is started again.
    """

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._chance = random.SystemRandom()

    def take(self, names: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
        """Give a port for each name: the one that it had before where that is free. Raises NoPortError."""
        given: dict[str, int] = {}
        try:
            for name in names:
                given[name] = self._take_one(before.get(name))
        except NoPortError:
            self.give_back(given)
            raise
        return given

    def keep(self, ports: Mapping[str, int]) -> None:
        """Take ports that are in use by what ran before."""
        self._taken.update(ports.values())

    def give_back(self, ports: Mapping[str, int]) -> None:
        """Let others have them."""
        self._taken.difference_update(ports.values())

    def _take_one(self, before: int | None) -> int:
        first = self._chance.randint(_LOWEST, _HIGHEST)
        candidates = chain([] if before is None else [before], range(first, _HIGHEST + 1), range(_LOWEST, first))
        for port in candidates:
            if port not in self._taken and _is_free(port):
                self._taken.add(port)
                return port
        raise NoPortError


def _is_free(port: int) -> bool:
    """Whether nothing listens there, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a past connection left is no obstacle
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
