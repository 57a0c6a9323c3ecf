"""`python -m support.driver_host FOLDER`: an agent's driver alone, to be killed with what it runs.

Reads an instance as JSON from standard input, starts it, waits until it is ready, says so, and stays.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from keelson.agent.drivers.process import ProcessDriver, Rules
from keelson.client.reads.nodes import DesiredInstance


async def _host(folder: Path) -> None:
    async def reveal(_instance_id: str) -> Mapping[str, str]:
        return {"KEY": "value"}

    instance = msgspec.json.decode(sys.stdin.buffer.readline(), type=DesiredInstance)
    driver = ProcessDriver(folder, Rules(node_id="node_1", host="127.0.0.1", root=folder.parent), reveal)
    run = await driver.start(instance)
    await run.wait_until_ready()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_host(Path(sys.argv[1])))
