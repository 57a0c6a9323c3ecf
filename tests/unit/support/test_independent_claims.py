"""The judge of claims and quotas can fail: each kind of fault, planted, is named."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keelson.events import Envelope, base
from keelson.log.claims import ClaimsFold
from support.independent_claims import Event, faults_of_claims, faults_of_quotas, fold_claims
from support.story import Story

SAMPLES = Path(base.__file__).parent / "samples"
IDS = {"org_id": "org_1", "project_id": "project_1", "app_id": "app_1", "env_id": "env_1", "node_id": "node_1"}


def log(*events: tuple[str, str, dict[str, Any]], bundled: bool = False) -> list[Event]:
    """Give events of one organisation, each by its type, its aggregate and its payload."""
    return [
        {
            **IDS,
            "position": position,
            "type": type_,
            "aggregate_id": aggregate_id,
            "payload": json.dumps(payload),
            "command_end": not bundled or position == len(events),
        }
        for position, (type_, aggregate_id, payload) in enumerate(events, start=1)
    ]


def quota(**allowed: int) -> tuple[str, str, dict[str, Any]]:
    return ("org.quota_set", "org_1", {"quota": allowed})


def app(number: int) -> tuple[str, str, dict[str, Any]]:
    return ("app.created", f"app_{number}", {"name": f"n{number}"})


def scaled(replicas: int, memory_bytes: int | None = None, env: str = "env_1") -> tuple[str, str, dict[str, Any]]:
    return ("env.scaled", env, {"replicas": {"web": replicas}, "memory_bytes": memory_bytes})


def released(replicas: int, memory_bytes: int) -> tuple[str, str, dict[str, Any]]:
    process = {"replicas": replicas, "memory_bytes": memory_bytes}
    return ("env.release_set", "env_1", {"processes": {"web": process}})


def test_it_agrees_with_the_service_on_whole_histories() -> None:
    """What nobody has but for a mistake in one of the two."""
    for seed in range(5):
        envelopes = Story(seed).tell(400)
        fold = ClaimsFold()
        for envelope in envelopes:
            fold.apply(envelope)
        ours = {
            (scope, key): claim
            for scope, held in fold_claims([msgspec.structs.asdict(each) for each in envelopes]).items()
            for key, claim in held.items()
        }
        assert ours == {place: (claim.aggregate_id, claim.amount) for place, claim in fold.claims.items()}


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.json")), ids=lambda file: file.stem)
def test_it_agrees_on_every_event(file: Path) -> None:
    sample = json.loads(file.read_text(encoding="utf-8"))
    envelope = msgspec.convert({**sample, "payload": json.dumps(sample["payload"])}, Envelope)
    fold = ClaimsFold()
    fold.apply(envelope)
    held = fold_claims([msgspec.structs.asdict(envelope)])
    ours = {(scope, key): claim for scope, keys in held.items() for key, claim in keys.items()}
    assert ours == {place: (claim.aggregate_id, claim.amount) for place, claim in fold.claims.items()}


def test_claims_that_are_not_as_the_log_says_are_named() -> None:
    events = log(app(1), scaled(3, 30))
    claims: list[Event] = [
        {"scope": "app.name:project_1", "key": "n1", "aggregate_id": "app_1", "amount": 0},
        {"scope": "app.of:org_1", "key": "app_1", "aggregate_id": "app_1", "amount": 0},
        {"scope": "env.instances:org_1", "key": "env_1", "aggregate_id": "env_1", "amount": 3},
        {"scope": "env.memory_bytes:org_1", "key": "env_1", "aggregate_id": "env_1", "amount": 30},
    ]
    scopes: list[Event] = [{"scope": each["scope"], "held": 1, "amount": each["amount"]} for each in claims]
    assert not faults_of_claims(events, claims, scopes)
    for place in range(4):
        rest = claims[:place] + claims[place + 1 :]
        assert faults_of_claims(events, rest, scopes)
        assert faults_of_claims(events, [*rest, {**claims[place], "amount": 7}], scopes)
        assert faults_of_claims(events, [*rest, {**claims[place], "aggregate_id": "app_9"}], scopes)
        assert faults_of_claims(events, claims, scopes[:place] + scopes[place + 1 :])
    assert faults_of_claims(events, [*claims, {**claims[0], "key": "n2"}], scopes)
    assert not faults_of_claims(events, claims, [*scopes, {"scope": "empty", "held": 0, "amount": 0}])


def test_more_than_a_quota_allows_is_named() -> None:
    assert not faults_of_quotas(log(quota(apps=2), app(1), app(2)))
    assert faults_of_quotas(log(quota(apps=1), app(1), app(2)))
    assert faults_of_quotas(log(quota(apps=2), app(1), app(2), app(3), bundled=True))
    assert not faults_of_quotas(log(quota(instances=3, memory_bytes=30), released(3, 10)))
    assert faults_of_quotas(log(quota(instances=2), released(3, 10)))
    assert faults_of_quotas(log(quota(memory_bytes=29), released(3, 10)))
    assert faults_of_quotas(log(released(3, 10), quota(instances=3), scaled(4, 40)))
    assert faults_of_quotas(log(released(3, 10), quota(instances=3), scaled(1, 10, env="env_2")))
    assert not faults_of_quotas(log(quota(), app(1), app(2)))


def test_a_lowered_quota_is_no_fault_until_more_is_taken() -> None:
    lowered = [released(3, 10), app(1), app(2), quota(instances=1, memory_bytes=1, apps=1)]
    assert not faults_of_quotas(log(*lowered, scaled(2, 20), scaled(1, 10)))
    assert faults_of_quotas(log(*lowered, scaled(2, 20), scaled(3, 30)))
    deleted: tuple[str, str, dict[str, Any]] = ("app.deleted", "app_1", {})
    assert not faults_of_quotas(log(*lowered, deleted))
    assert faults_of_quotas(log(*lowered, deleted, app(3)))
    assert not faults_of_quotas(log(*lowered, deleted, ("app.deleted", "app_2", {}), app(3)))
