"""Desired state folded by code that shares nothing with Keelson's: events in, what a node should be doing out.

It knows the published contract alone: which events there are, what a snapshot says, what its digest is of.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]

# What a snapshot says of an instance that the event of its allocation knows.
_OF_IDS = ("org_id", "project_id", "app_id", "env_id")
_OF_PAYLOAD = ("process", "release_id", "release_number", "spec", "spec_hash")


class Expected:
    """What a node should be doing, event after event."""

    def __init__(self, node_id: str) -> None:
        self.version = 0
        self._node_id = node_id
        self._instances: dict[str, dict[str, Any]] = {}

    @property
    def items(self) -> list[dict[str, Any]]:
        """All that is to be done, in the order of the instances."""
        return [self._instances[instance_id] for instance_id in sorted(self._instances)]

    @property
    def digest(self) -> str:
        """What the digest must be."""
        return digest_of(self.items)

    def follow(self, event: Event) -> None:
        """Follow an event of the log, whatever it is."""
        if event["node_id"] != self._node_id or not event["type"].startswith("instance."):
            return
        instance_id, payload = event["aggregate_id"], _payload(event)
        match event["type"]:
            case "instance.allocated":
                self._instances[instance_id] = {
                    "instance_id": instance_id,
                    **{name: event[name] for name in _OF_IDS},
                    **{name: payload[name] for name in _OF_PAYLOAD},
                    "secret_version": payload.get("secret_version"),
                    "desired_state": "running",
                }
                self.version = event["position"]
            case "instance.desired_state_changed":
                if instance_id in self._instances:
                    self._instances[instance_id]["desired_state"] = payload["desired_state"]
                self.version = event["position"]
            case "instance.status_changed" if payload["status"] == "stopped":
                self._instances.pop(instance_id, None)
                self.version = event["position"]


def expected_at(events: Iterable[Event], node_id: str, position: int) -> Expected:
    """Give what a node should be doing as of a position."""
    expected = Expected(node_id)
    for event in events:
        if event["position"] <= position:
            expected.follow(event)
    return expected


def digest_of(items: Any) -> str:
    """Compute what the contract says: SHA-256 of the canonical JSON, keys sorted, no spaces."""
    text = json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _payload(event: Event) -> Any:
    payload = event["payload"]
    return json.loads(payload) if isinstance(payload, str) else payload
