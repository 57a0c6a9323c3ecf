"""What was left running when whoever had started it was killed: noted in the home, and ended by the next start."""

import signal

from keelson.local.errors import LocalError
from keelson.local.home import Home
from keelson.local.keeper import Say
from keelson.local.process import end_process

_GRACE_S = 10.0


def end_orphans(home: Home, order: tuple[str, ...], say: Say) -> None:
    """End what still runs of what is noted in a home that is ours: first what is not in `order`, then in that order.

    Raises LocalError if one cannot be ended.
    """
    places = {name: place for place, name in enumerate(order)}
    for name, identity in sorted(home.read_running().items(), key=lambda item: places.get(item[0], -1)):
        say(name, f"ending pid {identity.pid}, left behind by a supervisor that was killed")
        gentle = signal.SIGINT if name == "database" else signal.SIGTERM
        if not end_process(identity, gentle, grace_s=_GRACE_S):
            raise LocalError(f"cannot end pid {identity.pid}, left behind as {name}")
