"""The judge of convergence: what is not as declared, it says so."""

from datetime import UTC, datetime
from typing import Any

import pytest

from keelson.client.reads.events import EventItem
from support.ledger import Ledger

ENV, NODE, ONE, TWO = "env_1", "node_1", "instance_1", "instance_2"
PROCESS = {"web": {"replicas": 1, "needs_secrets": True}}


class Story:
    """A log that is written event by event."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def say(self, what: str, of: str = ENV, *, end: bool = True, **payload: Any) -> None:
        """Append an event, at the end of a command or before it."""
        self.ledger.apply(
            EventItem(
                position=self.ledger.position + 1,
                type=what,
                version=1,
                stored_version=1,
                aggregate_id=of,
                aggregate_type=what.partition(".")[0],
                seq=1,
                env_id=None if what.startswith("node") else ENV,
                node_id=NODE if what.startswith(("node", "instance")) else None,
                actor_type="system",
                actor_id="test",
                request_id="r",
                command_id="c",
                command_end=end,
                recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
                payload=payload,
            )
        )

    def allocate(self, instance_id: str, release_id: str = "release_1", secret_version: int = 1) -> None:
        """Place a replica as it is declared at first, unless otherwise is said."""
        self.say(
            "instance.allocated",
            instance_id,
            process="web",
            release_id=release_id,
            spec={"variables": {"A": "1"}},
            secret_version=secret_version,
        )

    def report(self, instance_id: str, status: str) -> None:
        """Let its node say how it is."""
        self.say("instance.status_changed", instance_id, status=status)


@pytest.fixture
def story() -> Story:
    """Tell of one replica that is as declared."""
    story = Story()
    story.say("node.enrolled", NODE, name="node-a")
    story.say("env.config_set", variables={"A": "1"})
    story.say("secret.version_set", "secret_1", version=1)
    story.say("env.release_set", release_id="release_1", processes=PROCESS)
    story.allocate(ONE)
    story.report(ONE, "ready")
    return story


def lacks(story: Story) -> str:
    return story.ledger.lacks(ENV) or ""


def test_what_is_as_declared_lacks_nothing(story: Story) -> None:
    assert not lacks(story)


def test_what_is_not_as_declared_is_seen(story: Story) -> None:
    story.say("env.scaled", replicas={"web": 2})
    assert "are wanted" in lacks(story)
    story.allocate(TWO)
    assert "booting" in lacks(story)
    story.report(TWO, "ready")
    assert not lacks(story)
    story.say("env.scaled", replicas={"web": 1})
    assert "are wanted" in lacks(story)
    story.say("instance.desired_state_changed", TWO, desired_state="draining")
    assert "draining" in lacks(story)
    story.report(TWO, "stopped")
    assert not lacks(story)


@pytest.mark.parametrize(
    ("what", "payload", "seen"),
    [
        ("env.config_set", {"variables": {}}, "configuration"),
        ("secret.version_set", {"version": 2}, "secret"),
        ("env.release_set", {"release_id": "release_2", "processes": PROCESS}, "release"),
        ("node.state_changed", {"state": "offline"}, "offline"),
        ("node.state_changed", {"state": "draining"}, "draining"),
    ],
)
def test_what_is_outdated_or_on_a_node_that_goes_is_seen(
    story: Story, what: str, payload: dict[str, Any], seen: str
) -> None:
    story.say(what, **payload)
    assert seen in lacks(story)


def test_a_moment_with_too_few_is_seen_also_when_it_is_over(story: Story) -> None:
    begun = story.ledger.position
    story.allocate(TWO)
    story.say("instance.desired_state_changed", ONE, desired_state="draining")
    story.report(TWO, "ready")
    assert [each.ready for each in story.ledger.since(ENV, begun)] == [1, 1, 0, 1]
    assert [each.running for each in story.ledger.since(ENV, begun)] == [1, 2, 1, 1]


def test_what_is_within_a_command_is_no_moment(story: Story) -> None:
    begun = story.ledger.position
    story.say("instance.desired_state_changed", ONE, end=False, desired_state="stopped")
    assert len(story.ledger.since(ENV, begun)) == 1


def test_what_is_on_a_lost_node_is_not_ready(story: Story) -> None:
    begun = story.ledger.position
    story.say("node.state_changed", state="offline")
    assert [each.ready for each in story.ledger.since(ENV, begun)] == [1, 0]
