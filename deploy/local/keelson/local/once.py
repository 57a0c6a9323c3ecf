"""Programs that do one thing and end: the command lines of what the supervisor runs."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path


async def run_once(module: str, *arguments: str, environ: Mapping[str, str], log: Path) -> int:
    """Run a module's command line, what it says appended to a log; give its exit code. It is ended when cancelled."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environ),
            start_new_session=True,
        )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
