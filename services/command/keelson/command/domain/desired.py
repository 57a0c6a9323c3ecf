"""What an environment should be, as one value: now, or at a position of the log; and what differs between two."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from keelson.command.domain.env import Env
from keelson.command.domain.route import Route
from keelson.command.domain.secret_state import Secret, read_bundle
from keelson.command.state import Aggregate, State
from keelson.command.transaction import Transaction
from keelson.events.route import hostnames_in

# Aggregates of an environment whose events say what it should be.
_FOLDED: Mapping[str, type[State]] = {each.aggregate_type: each for each in (Env, Route, Secret)}

Value = int | str | dict[str, int | str | list[str]]


class Change(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """One thing that is changed; null where it is not, before or after."""

    what: str
    from_: Value | None
    to: Value | None


class DesiredRelease(msgspec.Struct, frozen=True):
    """A release of the app."""

    release_id: str
    release_number: int


class Target(msgspec.Struct, frozen=True):
    """Where a hostname leads."""

    process: str
    port: str


class Bundle(msgspec.Struct, frozen=True):
    """A version of secret values."""

    secret_id: str
    version: int
    keys: tuple[str, ...]
    digest: str


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment should be. Secret values are there or not: an empty bundle is as good as none."""

    release: DesiredRelease | None = None
    replicas: Mapping[str, int] = {}
    variables: Mapping[str, str] = {}
    routes: Mapping[str, Target] = {}
    secret: Bundle | None = None


async def desired_now(tx: Transaction, env: Aggregate[Env]) -> Desired:
    """Give what an environment should be, as this transaction's events leave it; all of it joins the read set."""
    routes = [(await tx.get(Route, each)).state for each in await tx.holders(hostnames_in(env.id))]
    secret = await read_bundle(tx, env.id)
    bundles: dict[str, Secret] = {secret.id: secret.state} if secret else {}
    return _desired(env.state, routes, bundles)


async def desired_at(tx: Transaction, env_id: str, position: int) -> Desired | None:
    """Give what an environment should have been when the log had come to a position; None if it was not there.

    Only commands that were complete by then count. Raises NotReachedError for a position that the log has not reached.
    """
    states: dict[str, State] = {}
    async for aggregate_id, event in tx.env_history(env_id, position, tuple(_FOLDED)):
        kind = _FOLDED[event.event_type.partition(".")[0]]
        states[aggregate_id] = kind.evolve(states.get(aggregate_id), event)
    env = states.get(env_id)
    if not isinstance(env, Env):
        return None
    routes = [state for state in states.values() if isinstance(state, Route) and not state.deleted]
    secrets = {key: state for key, state in states.items() if isinstance(state, Secret) and not state.deleted}
    return _desired(env, routes, secrets)


def release_of(env: Env) -> DesiredRelease | None:
    """Give the release that an environment should run; None before its first deploy."""
    if env.release_id is None or env.release_number is None:
        return None
    return DesiredRelease(env.release_id, env.release_number)


def changes_between(old: Desired, new: Desired) -> list[Change]:
    """Name each thing in which two differ, in a fixed order."""
    return [
        *_changes("release", {"": old.release}, {"": new.release}),
        *_changes("replicas/", old.replicas, new.replicas),
        *_changes("variables/", old.variables, new.variables),
        *_changes("routes/", old.routes, new.routes),
        *_changes("secret", {"": old.secret}, {"": new.secret}),
    ]


def _changes(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield Change(prefix + name, _shown(old.get(name)), _shown(new.get(name)))


def _shown(value: DesiredRelease | int | str | Target | Bundle | None) -> Value | None:
    """Give a value as it is told; an environment has one secret, whose id says nothing."""
    match value:
        case Bundle():
            return {"version": value.version, "keys": list(value.keys), "digest": value.digest}
        case DesiredRelease() | Target():
            return msgspec.structs.asdict(value)
        case _:
            return value


def _desired(env: Env, routes: list[Route], secrets: Mapping[str, Secret]) -> Desired:
    bundles = [Bundle(key, state.version, state.keys, state.digest) for key, state in secrets.items() if state.keys]
    return Desired(
        release=release_of(env),
        replicas=env.replicas,
        variables=env.variables,
        routes={route.hostname: Target(route.process, route.port) for route in routes},
        secret=bundles[0] if bundles else None,
    )
