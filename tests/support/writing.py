"""A writer to be killed: `python writing.py DSN PREFIX` appends commands of three events each, until its end.

It prints the id of each command once that is acknowledged.
"""

import asyncio
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from keelson.log.decision import Decision, Done
from support.decisions import an_app, decide
from support.log import appending


def _command(epoch: str, name: str) -> Decision:
    ids = (f"app_{name}-{each}" for each in range(3))
    decision = decide(epoch, *(an_app(app_id=each, name=each) for each in ids), key=name)
    decision.command_id = f"command_{name}"
    return decision


async def _write(dsn: str, prefix: str) -> None:
    async with appending(dsn, application_name="writing") as (appender, epoch):
        for number in count(0, 3):
            decisions = [_command(epoch, f"{prefix}-{number + each}") for each in range(3)]
            outcomes = await asyncio.gather(*(appender.append(decision, 20) for decision in decisions))
            for decision, outcome in zip(decisions, outcomes, strict=True):
                assert isinstance(outcome, Done)
                sys.stdout.write(f"{decision.command_id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_write(sys.argv[1], sys.argv[2]))
