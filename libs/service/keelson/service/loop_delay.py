"""How late the event loop is: what every request, timer and reply in this process waits for besides its own work."""

import asyncio
import time

from prometheus_client import Histogram

# Ten wakings a second cost less than a thousandth of a core.
SAMPLED_EACH_S = 0.1

DELAY = Histogram(
    "keelson_event_loop_delay_seconds",
    "How much later than asked for a timer rang",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


async def keep_measuring() -> None:
    """Measure until cancelled. The loop's timers are in milliseconds, and so is what is measured."""
    while True:
        asked_at = time.monotonic()  # the loop's own clock stands still while a callback runs
        await asyncio.sleep(SAMPLED_EACH_S)
        DELAY.observe(max(time.monotonic() - asked_at - SAMPLED_EACH_S, 0.0))
