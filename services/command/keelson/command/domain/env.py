"""Environments: where a release of an app runs, how many of each process, and with which variables."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from keelson.command.domain.app import App
from keelson.command.domain.deploy_state import supersede_open
from keelson.command.domain.quota import Wanted, limit_count, limit_wanted
from keelson.command.domain.release import ports_of
from keelson.command.domain.secret_state import erase, read_bundle
from keelson.command.fields import AppId, EnvId, Name, ProcessName, Text, VariableName
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import Aggregate, State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.env import EnvConfigSet, EnvCreated, EnvDeleted, EnvReleaseSet, EnvRenamed, EnvScaled
from keelson.events.instance import instances_of
from keelson.events.route import hostnames_in

# Without a quota of its organisation, an environment may want so many of one process.
MAX_REPLICAS = 1000


class Env(State, frozen=True, kw_only=True):
    """An environment; `replicas`, `memory_bytes` (of one replica) and `ports` name every process of its release."""

    aggregate_type: ClassVar[str] = "env"
    noun: ClassVar[str] = "environment"

    name: str
    deploy_id: str | None = None
    release_id: str | None = None
    release_number: int | None = None
    replicas: dict[str, int] = {}
    memory_bytes: dict[str, int] = {}
    ports: dict[str, tuple[str, ...]] = {}
    variables: dict[str, str] = {}

    @property
    def wanted(self) -> Wanted:
        """What it wants of its organisation's quotas."""
        return Wanted.scaled(self.replicas, self.memory_bytes)

    @classmethod
    def evolve(cls, state: "Env | None", event: Event) -> "Env":
        """Give the state after an event."""
        match state, event:
            case None, EnvCreated(name=name):
                return cls(name=name)
            case Env(), EnvRenamed(name=name):
                return msgspec.structs.replace(state, name=name)
            case Env(), EnvDeleted():
                return msgspec.structs.replace(state, deleted=True)
            case Env(), EnvScaled(replicas=replicas):
                return msgspec.structs.replace(state, replicas=replicas)
            case Env(), EnvConfigSet(variables=variables):
                return msgspec.structs.replace(state, variables=variables)
            case Env(), EnvReleaseSet(processes=processes):
                return msgspec.structs.replace(
                    state,
                    deploy_id=event.deploy_id,
                    release_id=event.release_id,
                    release_number=event.release_number,
                    replicas={name: process.replicas for name, process in processes.items()},
                    memory_bytes={name: process.memory_bytes for name, process in processes.items()},
                    ports=ports_of(processes),
                )
            case _:
                raise TypeError(f"not an event of this environment: {event.event_type}")


class CreateEnv(Command, frozen=True, kw_only=True):
    """Create an environment; its name is unique in the app."""

    app_id: AppId
    name: Name
    env_id: EnvId | None = None


class RenameEnv(Command, frozen=True, kw_only=True):
    """Rename an environment; its old name is free at once."""

    env_id: EnvId
    name: Name


class DeleteEnv(Command, frozen=True, kw_only=True):
    """Delete an environment without routes and live instances, and its secret; an open deploy is superseded."""

    env_id: EnvId


class ScaleEnv(Command, frozen=True, kw_only=True):
    """Want so many replicas of the named processes; the others stay as they are."""

    env_id: EnvId
    replicas: Annotated[dict[ProcessName, Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(min_length=1, max_length=100)]


class SetEnvConfig(Command, frozen=True, kw_only=True):
    """Set the whole of the environment's non-secret variables."""

    env_id: EnvId
    variables: Annotated[dict[VariableName, Text], Meta(max_length=1000)]


class EnvResult(msgspec.Struct, frozen=True):
    """Which environment."""

    env_id: str


async def create_env(tx: Transaction, command: CreateEnv) -> EnvResult:
    """Create it, in a live app of an organisation that may have one more."""
    app = await tx.get(App, command.app_id)
    env_id = await tx.new_id(Env, command.env_id)
    await limit_count(tx, app.ids.org_id, "envs")
    tx.create(Env, env_id, msgspec.structs.replace(app.ids, env_id=env_id), EnvCreated(name=command.name))
    return EnvResult(env_id)


async def rename_env(tx: Transaction, command: RenameEnv) -> EnvResult:
    """Rename it, unless that is its name."""
    env = await tx.get(Env, command.env_id)
    if env.state.name != command.name:
        tx.append(env, EnvRenamed(name=command.name))
    return EnvResult(env.id)


async def delete_env(tx: Transaction, command: DeleteEnv) -> EnvResult:
    """Delete it, unless it has routes or instances that have not stopped; nothing may roll into it any more."""
    env = await tx.get(Env, command.env_id)
    if await tx.held(hostnames_in(env.id)):
        raise Refusal("in_use", f"the environment {env.id} still has routes")
    if await tx.held(instances_of(env.id)):
        raise Refusal("in_use", f"the environment {env.id} still has instances")
    await supersede_open(tx, env.state.deploy_id, "the environment was deleted")
    secret = await read_bundle(tx, env.id)
    if secret is not None:
        erase(tx, secret)
    tx.append(env, EnvDeleted())
    return EnvResult(env.id)


async def scale_env(tx: Transaction, command: ScaleEnv) -> EnvResult:
    """Scale processes of its release, unless they are so or its organisation may not have so many."""
    env = await tx.get(Env, command.env_id)
    for process, wanted in command.replicas.items():
        if process not in env.state.replicas:
            raise Refusal("unknown_process", f"the release of {env.id} has no process {process}")
        if wanted > MAX_REPLICAS:
            raise Refusal("quota_exceeded", f"{process} may have at most {MAX_REPLICAS} replicas, {wanted} are wanted")
    replicas = env.state.replicas | command.replicas
    if replicas != env.state.replicas:
        await rescale(tx, env, replicas)
    return EnvResult(env.id)


async def rescale(tx: Transaction, env: Aggregate[Env], replicas: dict[str, int]) -> None:
    """Want so many replicas of each process of its release, within the quotas."""
    after = Wanted.scaled(replicas, env.state.memory_bytes)
    await limit_wanted(tx, env.ids.org_id, before=env.state.wanted, after=after)
    tx.append(env, EnvScaled(replicas=replicas, memory_bytes=after.memory_bytes))


async def set_env_config(tx: Transaction, command: SetEnvConfig) -> EnvResult:
    """Set its variables, unless they are so."""
    env = await tx.get(Env, command.env_id)
    if command.variables != env.state.variables:
        tx.append(env, EnvConfigSet(variables=command.variables))
    return EnvResult(env.id)


HANDLERS = (
    Handler(name="env.create", command=CreateEnv, handle=create_env, result=EnvResult),
    Handler(name="env.rename", command=RenameEnv, handle=rename_env, result=EnvResult, target="env_id"),
    Handler(
        name="env.delete", command=DeleteEnv, handle=delete_env, result=EnvResult, target="env_id", needs_reason=True
    ),
    Handler(name="env.scale", command=ScaleEnv, handle=scale_env, result=EnvResult, target="env_id"),
    Handler(name="env.set_config", command=SetEnvConfig, handle=set_env_config, result=EnvResult, target="env_id"),
)
