"""Rolling back, over random histories: the environment is what it was, the dry run said so, and it can be undone.

What an environment was, and what differs, is said by code that shares nothing with Keelson's (support.independent).
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keelson.command.domain import desired, rollback
from keelson.command.domain.deploy import CreateDeploy, start_deploy
from keelson.command.domain.env import ScaleEnv, SetEnvConfig
from keelson.command.domain.rollback import RollBackEnv
from keelson.command.domain.route import CreateRoute, DeleteRoute, Route, UpdateRoute
from keelson.command.domain.secret import DeleteSecret, SetSecret
from keelson.command.handlers import Command
from keelson.events import Event
from keelson.events.env import EnvCreated
from keelson.events.registry import encode
from keelson.events.release import Port, Process, ReleaseCreated
from support.independent import desired_at, faults_of_rules
from support.specs import APP_EXISTS, ENV, Fact, History, Outcome, id_of, ids_of
from support.specs import given as given_facts

ENVS = (ENV, id_of("env", 2))
# Each release lacks something that another has: a process, or a port.
RELEASES: list[dict[str, tuple[str, ...]]] = [
    {"web": ("http",), "jobs": ("http",)},
    {"web": ("http", "admin")},
    {"web": ("http",), "api": ("http",)},
]
PROCESSES, PORTS = ("web", "jobs", "api"), ("http", "http", "admin")
HOSTNAMES = tuple(f"{name}.example" for name in "ab")


def release(number: int) -> Fact:
    processes = {
        name: Process(command=(name,), ports=tuple(Port(port, 80) for port in ports), cpu_millis=1, memory_bytes=1)
        for name, ports in RELEASES[number - 1].items()
    }
    return (id_of("release", number), ReleaseCreated(number=number, image="shop@sha256:0", processes=processes))


BASE: tuple[Fact, ...] = (
    *APP_EXISTS,
    (ENVS[0], EnvCreated(name="production")),
    (ENVS[1], EnvCreated(name="staging"), {"env_id": ENVS[1]}),
    *(release(number) for number in range(1, len(RELEASES) + 1)),
)


class Platform:
    """What has happened so far: the log, the vault, and which aggregates there are."""

    def __init__(self) -> None:
        self.facts: list[Fact] = list(BASE)
        self.ends: list[int] = list(range(1, len(BASE) + 1))
        # What an append erases is gone for handlers; the test remembers it.
        self.vault: dict[tuple[str, int], dict[str, str]] = {}
        self.ever: dict[tuple[str, int], dict[str, str]] = {}

    @property
    def head(self) -> int:
        """The last position."""
        return len(self.facts)

    def run(self, *commands: Command) -> Outcome:
        """Let commands happen as one, if they are not refused, also by the append; give what became of them."""
        known = given_facts(*self.facts).having(secrets=self.vault, ends=self.ends, minted=10 * self.head)
        outcome = known.when(*commands)
        appended = outcome.as_appended()
        if isinstance(appended, str) or not appended:
            return outcome
        self.facts += appended
        self.ends.append(self.head)
        for secret_id, version, values in outcome.vaulted:
            if version is None or values is None:
                self.vault = {place: kept for place, kept in self.vault.items() if place[0] != secret_id}
            else:
                self.vault[secret_id, version] = self.ever[secret_id, version] = values
        return outcome

    @property
    def ids(self) -> dict[str, dict[str, Any]]:
        """The ids of each aggregate."""
        firsts: dict[str, Fact] = {}
        for fact in self.facts:
            firsts.setdefault(fact[0], fact)
        return {name: msgspec.structs.asdict(ids_of(fact)) for name, fact in firsts.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Give the log as rows."""
        ids = self.ids
        return [
            {
                "position": position,
                "aggregate_id": fact[0],
                "type": fact[1].event_type,
                "payload": encode(fact[1]),
                "command_end": position in self.ends,
                **ids[fact[0]],
            }
            for position, fact in enumerate(self.facts, start=1)
        ]

    def desired(self, env_id: str, position: int) -> dict[str, Any] | None:
        """Give what an environment was at a position."""
        return desired_at(self.rows(), env_id, position, self.ever)

    def live(self, prefix: str) -> list[str]:
        """Give the aggregates of a kind that are there, in order."""
        own = [fact for fact in self.facts if fact[0].startswith(f"{prefix}_")]
        gone = {fact[0] for fact in own if fact[1].event_type.endswith(".deleted")}
        return [each for each in dict.fromkeys(fact[0] for fact in own) if each not in gone]


# What is tried, and with which numbers: an environment, and three that say what of it.
Step = tuple[str, int, int, int, int]
KINDS = (
    ("deploy", 4),
    ("scale", 3),
    ("configure", 3),
    ("route", 5),
    ("reroute", 3),
    ("unroute", 3),
    ("set", 4),
    ("both", 2),
    ("unset", 1),
    ("rollback", 2),
)


def commands_of(platform: Platform, step: Step) -> list[Command]:
    """Give the commands of a step, as a bundle; none where there is nothing they could be about. Some are refused."""
    kind, where, first, second, third = step
    env_id = ENVS[where]
    routes, secrets = platform.live("route"), platform.live("secret")
    hostname = HOSTNAMES[first % len(HOSTNAMES)]
    process, port = PROCESSES[second % len(PROCESSES)], PORTS[third % len(PORTS)]
    configure = SetEnvConfig(env_id=env_id, variables={"AB"[first % 2]: str(second % 3)})
    set_secret = SetSecret(env_id=env_id, values={"PQ"[first % 2]: ("x", "y", None)[second % 3]})
    made: dict[str, list[Command]] = {
        "deploy": [CreateDeploy(env_id=env_id, release_id=id_of("release", 1 + first % len(RELEASES)))],
        "scale": [ScaleEnv(env_id=env_id, replicas={process: first})],
        "configure": [configure],
        "route": [CreateRoute(env_id=env_id, hostname=hostname, process=process, port=port)],
        "set": [set_secret],
        "both": [configure, set_secret],
        "rollback": [RollBackEnv(env_id=env_id, position=max(1, platform.head - first * second))],
    }
    if routes:
        route_id = routes[(first + third) % len(routes)]
        made["reroute"] = [UpdateRoute(route_id=route_id, hostname=hostname, process=process, port=port)]
        made["unroute"] = [DeleteRoute(route_id=route_id)]
    if secrets:
        made["unset"] = [DeleteSecret(secret_id=secrets[first % len(secrets)])]
    return made.get(kind, [])


def check(steps: list[Step], where: int, back: int) -> None:
    """Roll an environment back after some steps, and hold what comes of it to what the environment was."""
    platform = Platform()
    for step in [("deploy", 0, 0, 0, 0), ("deploy", 1, 2, 0, 0), *steps]:
        platform.run(*commands_of(platform, step))
    env_id, head = ENVS[where], platform.head
    position = max(len(BASE) - len(RELEASES) - 1, head - back)
    before, past = platform.desired(env_id, head), platform.desired(env_id, position)
    dry = platform.run(RollBackEnv(env_id=env_id, position=position, dry_run=True))
    assert platform.head == head, "a dry run appended something"
    assert not dry.vaulted
    real = platform.run(RollBackEnv(env_id=env_id, position=position))
    reasons = reasons_against(platform, env_id, position, head)
    assert len(real.reasons) == len(dry.reasons) == reasons
    if reasons:
        assert platform.head == head, "a refused one appended something"
        return
    assert before is not None
    assert past is not None
    assert platform.desired(env_id, platform.head) == past
    assert (platform.head > head) == (before != past)
    assert named(dry) == named(real) == differences(before, past)
    undone = platform.run(RollBackEnv(env_id=env_id, position=head))
    assert platform.desired(env_id, platform.head) == before
    assert named(undone) == differences(past, before)
    assert not faults_of_rules(platform.rows())


def reasons_against(platform: Platform, env_id: str, position: int, head: int) -> int:
    """Count the reasons why an environment cannot be again what it was."""
    present, past = platform.desired(env_id, head), platform.desired(env_id, position)
    if present is None or past is None:
        return 1
    (other_id,) = set(ENVS) - {env_id}
    elsewhere = platform.desired(other_id, head) or {}
    taken = [name for name in past if name.startswith("routes/") and name in elsewhere]
    undeployed = "release" in present and "release" not in past
    erased = "secret" in past and secret_at(platform, env_id, position) != secret_at(platform, env_id, head)
    return len(taken) + undeployed + erased


def secret_at(platform: Platform, env_id: str, position: int) -> str | None:
    """Give the secret that an environment had at a position."""
    end = max(each for each in platform.ends if each <= position)
    found = None
    for fact in platform.facts[:end]:
        kind = fact[1].event_type
        if kind in ("secret.created", "secret.deleted") and platform.ids[fact[0]]["env_id"] == env_id:
            found = fact[0] if kind == "secret.created" else None
    return found


def named(outcome: Outcome) -> dict[str, tuple[Any, Any]]:
    """Give what a rollback named, before and after; a secret by its keys, whose values are not told."""
    assert outcome.refusal is None, outcome.refusal
    [result] = outcome.results
    told = msgspec.to_builtins(result)["changes"]
    found = {each["what"]: (as_told(each["from"]), as_told(each["to"])) for each in told}
    assert len(found) == len(told), "something is named twice"
    return found


def as_told(value: Any) -> Any:
    return value["keys"] if isinstance(value, dict) and "digest" in value else value


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Give what differs, as a rollback should name it."""
    differing = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    return {
        name: tuple(sorted(of[name]) if name == "secret" and name in of else of.get(name) for of in (old, new))  # type: ignore[misc] # two of them
        for name in differing
    }


_kinds = st.sampled_from([kind for kind, weight in KINDS for _ in range(weight)])
_steps = st.lists(st.tuples(_kinds, st.integers(0, 1), *[st.integers(0, 5)] * 3), min_size=10, max_size=40)


def run(**options: Any) -> None:
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large]
    configured = settings(deadline=None, suppress_health_check=suppressed, database=None, **options)
    configured(given(_steps, st.integers(0, 1), st.integers(0, 40))(check))()


def test_an_environment_is_what_it_was_and_can_be_what_it_is() -> None:
    run(max_examples=200)


def take_deleted_routes_for_live(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Route.evolve

    def evolve(state: Route | None, event: Event) -> Route:
        found = original(state, event)
        return msgspec.structs.replace(found, deleted=False)

    monkeypatch.setattr(
        desired, "_FOLDED", {**desired._FOLDED, "route": type("R", (), {"evolve": staticmethod(evolve)})}
    )


def leave_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def restore(*_: Any) -> None:
        pass

    monkeypatch.setattr(rollback, "_restore_secret", restore)


def scale_as_now(monkeypatch: pytest.MonkeyPatch) -> None:
    original = start_deploy

    async def start(tx: Any, env: Any, release: Any, replicas: Any, **options: Any) -> Any:
        now = {name: env.state.replicas.get(name, 1) for name in replicas}
        return await original(tx, env, release, now, **options)

    monkeypatch.setattr(rollback, "start_deploy", start)


def count_torn_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(history: History, position: int) -> int | None:
        return position if position <= len(history.facts) else None

    monkeypatch.setattr(History, "read_command_end", read)


def name_only_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    original = desired.changes_between

    def changes(old: Any, new: Any) -> Any:
        return [each for each in original(old, new) if each.to is not None]

    monkeypatch.setattr(rollback, "changes_between", changes)


def overlook_who_holds_a_hostname(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(rollback, "_lost_hostnames", lost)


@pytest.mark.parametrize(
    "plant",
    [
        take_deleted_routes_for_live,
        leave_secrets,
        scale_as_now,
        count_torn_commands,
        name_only_what_is_added,
        overlook_who_holds_a_hostname,
    ],
)
def test_planted_bugs_are_found(monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run(max_examples=1000, phases=[Phase.generate], derandomize=True)
