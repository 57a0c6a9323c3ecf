"""What README.md shows is what happens on `make run`: its examples answer as it says but for ids and times."""

import asyncio
import os
import re
import sys
from pathlib import Path

from support.programs import needs
from support.repository import ROOT
from support.supervised import Supervised, supervised

EXAMPLE = re.compile(
    r"```sh\n(?P<command>(?:(?!```).)*?curl (?:(?!```).)*?)```\n\n```json\n(?P<answer>.*?)```", re.DOTALL
)

STREAM = re.compile(
    r"```sh\n(?P<command>(?:(?!```).)*?curl -sN (?:(?!```).)*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL
)

PROGRAM = re.compile(r"```python\n(?P<program>.*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL)

# What differs from one run to the next, and what stands for it.
VOLATILE = [
    (re.compile(r"\b([a-z]+)_[0-7][0-9a-hjkmnp-tv-z]{25}\b"), r"\1_…"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "…time…"),
    (re.compile(r'"request_id": "[0-9a-f]+"'), '"request_id": "…"'),
    (re.compile(r'"[0-9a-z]+-(\d+)"'), r'"…-\1"'),
    (re.compile(r"^id: [0-9a-z]+-", re.MULTILINE), "id: …-"),
    (re.compile(r"^retry: \d+", re.MULTILINE), "retry: …"),
]


def settled(text: str) -> str:
    """Give a text with what differs from run to run left out."""
    for pattern, replacement in VOLATILE:
        text = pattern.sub(replacement, text)
    return text


def addressed(text: str, stack: Supervised) -> str:
    """Give a text of the README with the ports of a stack, which are others."""
    for port, service in ((8081, "COMMAND"), (8082, "QUERY"), (8083, "PROJECTOR")):
        text = text.replace(f"localhost:{port}", f"localhost:{stack.environ[f'KEELSON_{service}_PORT']}")
    return text


async def run(token: str, *command: str) -> str:
    """Run a command of the README against a stack."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return output.decode()


@needs("curl", "the examples need it")
async def test_every_example_answers_as_the_readme_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples, programs = list(EXAMPLE.finditer(readme)), list(PROGRAM.finditer(readme))
    streams = list(STREAM.finditer(readme))
    assert streams
    assert len(examples) >= 3
    assert len(programs) >= 3

    with supervised(tmp_path / "home") as stack:
        await stack.start()
        token = stack.dev.operator_token
        for example in examples:
            answer = await run(token, "sh", "-c", addressed(example["command"], stack))
            assert settled(answer) == settled(example["answer"]), example["command"]
        for stream in streams:
            output = await run(token, "sh", "-c", addressed(stream["command"], stack))
            assert settled(output).startswith(settled(stream["output"])), stream["command"]
        for program in programs:
            assert await run(token, sys.executable, "-c", addressed(program["program"], stack)) == program["output"]
        assert await stack.end() == 0
