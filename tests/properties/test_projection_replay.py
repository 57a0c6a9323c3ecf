"""F25: replayed in another process, under another hash seed and on another day, the same log gives identical rows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keelson.events import Envelope, Event
from keelson.events.env import EnvConfigSet
from keelson.views.changes import Change, put
from keelson.views.projection import Projection
from support.made_up import THINGS

TESTS = Path(__file__).parents[1]
HASH_SEEDS = ("0", "1", "4242")


def replay(code: str, hash_seed: str) -> str:
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
    return subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-W", "error", "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


@pytest.mark.parametrize("seed", [1, 2])
def test_f25_a_replay_under_another_hash_seed_gives_identical_rows(seed: int) -> None:
    answers = {replay(f"from support.replay import main; main({seed})", hash_seed) for hash_seed in HASH_SEEDS}

    assert len(answers) == 1
    assert len(answers.pop().splitlines()) == 3


HASTY = Projection("hasty", version=1, tables=(THINGS,))


@HASTY.on(EnvConfigSet)
def join_a_set(envelope: Envelope, event: EnvConfigSet) -> list[Change]:
    """Planted: lets the order of a set into a row."""
    return [put(THINGS, id=envelope.aggregate_id, label=" ".join(set(event.variables)))]


def digest_hasty() -> str:
    """Digest what the planted handler makes of a history."""
    from support.replay import digest_of  # noqa: PLC0415 - runs in the processes of the test below
    from support.story import Story  # noqa: PLC0415

    return digest_of(HASTY, Story(1).tell(300))


def test_f25_planted_the_order_of_a_set_in_a_handler_is_caught() -> None:
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("planted", {__file__!r})
planted = importlib.util.module_from_spec(spec)
sys.modules["planted"] = planted
spec.loader.exec_module(planted)
print(planted.digest_hasty())
"""
    assert len({replay(code, hash_seed) for hash_seed in HASH_SEEDS}) > 1
    assert issubclass(EnvConfigSet, Event)
