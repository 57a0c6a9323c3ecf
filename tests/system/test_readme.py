"""What README.md shows is what happens: its examples are run, and answer as it says but for ids and times."""

import asyncio
import os
import re
import sys
from pathlib import Path

from keelson.access.tokens import new_token
from keelson.local.child import service_environ
from keelson.local.operator import make_operator
from support.database import Cluster, Database
from support.programs import needs
from support.repository import ROOT
from support.stack import Stack, running_stack

EXAMPLE = re.compile(
    r"```sh\n(?P<command>(?:(?!```).)*?curl (?:(?!```).)*?)```\n\n```json\n(?P<answer>.*?)```", re.DOTALL
)

PROGRAM = re.compile(r"```python\n(?P<program>.*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL)

# What differs from one run to the next, and what stands for it.
VOLATILE = [
    (re.compile(r"\b([a-z]+)_[0-7][0-9a-hjkmnp-tv-z]{25}\b"), r"\1_…"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "…time…"),
    (re.compile(r'"request_id": "[0-9a-f]+"'), '"request_id": "…"'),
    (re.compile(r'"[0-9a-z]+-(\d+)"'), r'"…-\1"'),
]


def settled(text: str) -> str:
    """Give a text with what differs from run to run left out."""
    for pattern, replacement in VOLATILE:
        text = pattern.sub(replacement, text)
    return text


def addressed(text: str, stack: Stack) -> str:
    """Give a text of the README with the ports of a stack, which are others."""
    for port, process in (("8081", stack.commands[0]), ("8082", stack.queries[0]), ("8083", stack.projectors[0])):
        text = text.replace(f"localhost:{port}", process.url.removeprefix("http://"))
    return text


async def run(token: str, *command: str) -> str:
    """Run a command of the README against a stack."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return output.decode()


@needs("curl", "the examples need it")
async def test_every_example_answers_as_the_readme_says(cluster: Cluster, database: Database, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples, programs = list(EXAMPLE.finditer(readme)), list(PROGRAM.finditer(readme))
    assert len(examples) >= 3
    assert programs

    token = new_token()
    environ = service_environ(os.environ, database_url=database.command_dsn, operator_token=token)
    await make_operator(environ, token, tmp_path / "bootstrap.log")
    async with running_stack(cluster, database, tmp_path) as stack:
        for example in examples:
            answer = await run(token, "sh", "-c", addressed(example["command"], stack))
            assert settled(answer) == settled(example["answer"]), example["command"]
        for program in programs:
            assert await run(token, sys.executable, "-c", addressed(program["program"], stack)) == program["output"]
