"""All processes of one run: those of its session, and those that left it, as daemons do."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import ParamSpec

import structlog

from keelson.agent.drivers.process.aside import to_the_end
from keelson.agent.drivers.process.identity import Identity, Member, has_variable, pids, private_bytes, read_sessions

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5
# SIGKILL ends all but what hangs in the kernel; after that long it is worth a line in the log.
_STUCK_S = 5.0

P = ParamSpec("P")

_log = structlog.get_logger()


class Group:
    """The processes of a run: its leader, and whatever that has started.

    They are known by their session, which is the leader's; and where the leader is gone, so that another session may
    have got its number, or where they have left the session, by a variable of the environment that they were started
    with.
    """

    def __init__(self, leader: Identity, variable: str, looking: asyncio.Lock) -> None:
        """Know the group of `leader`; `variable` is `NAME=value`, in the environment of all of them and no others.

        Looking for them takes milliseconds, tens of them on a machine with many processes. It is done beside the loop,
        by one group at a time of those that share `looking`: many that end at once keep no heartbeat waiting.
        """
        self.leader = leader
        self._variable = variable
        self._looking = looking
        # Seen alive by us: as long as any process has the session's number, nobody else gets it, and no longer.
        self._watched = leader.is_running()

    def members_of(self, session: Sequence[Member]) -> Sequence[Member]:
        """Give those of a session with the leader's number that are of this run.

        Once nobody had that number, a session that gets it is another's.
        """
        now = Identity.read(self.leader.pid)
        if now is not None and now != self.leader:  # the number is another's
            self._watched = False
            return ()
        if now is None and not session:
            self._watched = False
        if now is not None or self._watched:
            return session
        return [each for each in session if has_variable(each.identity.pid, self._variable)]

    def find(self) -> set[Identity]:
        """Give all that run, wherever they are."""
        session = read_sessions().get(self.leader.pid, ())
        return {each.identity for each in self.members_of(session)} | self._find_strays()

    @staticmethod
    def hold_more_than(limit_bytes: int, members: Sequence[Member]) -> bool:
        """Whether processes have more memory than that, what they share being counted once.

        What each has is added up first, which is cheap; only if that is too much is it looked at more closely.
        """
        if sum(each.rss_bytes for each in members) <= limit_bytes:
            return False
        return sum(private_bytes(each) for each in members) > limit_bytes

    def signal(self, number: signal.Signals) -> set[Identity]:
        """Send a signal to all that run; give which those were."""
        found = self.find()
        for each in found:
            each.signal(number)
        return found

    async def end(self, grace_s: float) -> None:
        """Send SIGTERM to all; after `grace_s` seconds SIGKILL, until none is left, however long that takes.

        Returns as soon as none is left. Of what was started meanwhile, nothing is left either. Cancelling is safe.
        """
        if grace_s > 0 and await self._aside(self.signal, signal.SIGTERM):
            try:
                async with asyncio.timeout(grace_s):
                    await self.leader.wait_until_gone()
                    await self._wait_until_none_is_left()
            except TimeoutError:
                pass
        waited_s, look_s = 0.0, _FIRST_LOOK_S
        while stuck := await self.kill():
            if waited_s < _STUCK_S <= waited_s + look_s:
                _log.error("processes_survive", pids=sorted(each.pid for each in stuck))
            await asyncio.sleep(look_s)
            waited_s, look_s = waited_s + look_s, min(2 * look_s, _LONGEST_LOOK_S)

    async def kill(self) -> set[Identity]:
        """Send SIGKILL to all that run; give which those were. Cancelling is safe."""
        return await self._aside(self.signal, signal.SIGKILL)

    async def _aside(self, look: Callable[P, set[Identity]], *args: P.args, **kwargs: P.kwargs) -> set[Identity]:
        async with self._looking:
            return await to_the_end(look, *args, **kwargs)

    async def _wait_until_none_is_left(self) -> None:
        look_s = _FIRST_LOOK_S
        while await self._aside(self.find):
            await asyncio.sleep(look_s)
            look_s = min(2 * look_s, _LONGEST_LOOK_S)

    def _find_strays(self) -> set[Identity]:
        strays = (Identity.read(pid) for pid in pids() if has_variable(pid, self._variable))
        return {each for each in strays if each is not None and each.is_running()}
