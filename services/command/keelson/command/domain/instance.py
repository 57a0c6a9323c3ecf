"""Instances: replicas of processes, placed on nodes, which report how they are."""

from typing import Annotated

import msgspec
from msgspec import Meta

from keelson.command.domain.env import Env
from keelson.command.domain.instance_state import DESIRED, STATUSES, Instance
from keelson.command.domain.node import limit_memory
from keelson.command.domain.node_state import Node
from keelson.command.domain.release import Release
from keelson.command.domain.secret_state import read_bundle
from keelson.command.fields import EnvId, Host, InstanceId, NodeId, PortName, ProcessName, Text
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import Aggregate
from keelson.command.transaction import Transaction
from keelson.events import instance as events
from keelson.events.instance import (
    DesiredState,
    InstanceAllocated,
    InstanceDesiredStateChanged,
    InstanceStatus,
    InstanceStatusChanged,
    hash_of,
    resolve_spec,
)

ReasonCode = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$(?!\n)", description="lower case, with underscores")]


class AllocateInstance(Command, frozen=True, kw_only=True):
    """Place one replica of a process of the environment's release on an active node that has the memory for it."""

    env_id: EnvId
    process: ProcessName
    node_id: NodeId
    instance_id: InstanceId | None = None


class SetDesiredState(Command, frozen=True, kw_only=True):
    """Let an instance finish (draining), or stop it; on a node that is offline it then counts as stopped."""

    instance_id: InstanceId
    desired_state: DesiredState


class Endpoint(Command, frozen=True, kw_only=True):
    """Where a port of an instance can be reached."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]


class ReportStatus(Command, frozen=True, kw_only=True):
    """Say how an instance is: all of it, each time. `ready` comes with endpoints, `failed` with a reason code."""

    instance_id: InstanceId
    status: InstanceStatus
    endpoints: Annotated[dict[PortName, Endpoint], Meta(max_length=100)] | None = None
    reason_code: ReasonCode | None = None
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**32)] | None = None
    message: Text | None = None

    def __post_init__(self) -> None:
        if self.endpoints is not None and self.status != "ready":
            raise ValueError("only what is ready has endpoints")
        if self.reason_code is None and self.status == "failed":
            raise ValueError("what failed has a reason_code")


class InstanceResult(msgspec.Struct, frozen=True):
    """Which instance."""

    instance_id: str


async def allocate_instance(tx: Transaction, command: AllocateInstance) -> InstanceResult:
    """Place it, its spec resolved as of now: what the environment wants later is for another instance."""
    env = await tx.get(Env, command.env_id)
    if env.state.release_id is None or command.process not in env.state.replicas:
        raise Refusal("unknown_process", f"the release of {env.id} has no process {command.process}")
    node = await tx.get(Node, command.node_id)
    if node.state.state != "active":
        raise Refusal("node_not_active", f"the node {node.id} takes no instances: it is not active")
    release = await tx.get(Release, env.state.release_id)
    process = release.state.processes[command.process]
    spec = resolve_spec(release.state.image, process, env.state.variables)
    instance_id = await tx.new_id(Instance, command.instance_id)
    limit_memory(tx, node, node.state.memory_bytes)
    allocated = InstanceAllocated(
        process=command.process,
        release_id=release.id,
        release_number=release.state.number,
        secret_version=await _secret_version(tx, env) if process.needs_secrets else None,
        spec=spec,
        spec_hash=hash_of(spec),
    )
    tx.create(Instance, instance_id, msgspec.structs.replace(env.ids, node_id=node.id), allocated)
    return InstanceResult(instance_id)


async def set_desired_state(tx: Transaction, command: SetDesiredState) -> InstanceResult:
    """Change what its node should do, unless that is so. Of a node that is lost nothing more will be heard."""
    instance = await tx.get(Instance, command.instance_id)
    current, wanted = instance.state.desired_state, command.desired_state
    if wanted != current:
        if wanted not in DESIRED.get(current, ()):
            raise Refusal("invalid_transition", f"instance {instance.id} is to be {current} and not {wanted} any more")
        tx.append(instance, InstanceDesiredStateChanged(desired_state=wanted))
    if wanted == "stopped" and instance.state.status != "stopped" and await _is_on_lost_node(tx, instance):
        tx.append(instance, InstanceStatusChanged(status="stopped", reason_code="node_lost"))
    return InstanceResult(instance.id)


async def report_status(tx: Transaction, command: ReportStatus) -> InstanceResult:
    """Take it for true, unless nothing is new about it; of what has stopped nothing is new."""
    instance = await tx.get(Instance, command.instance_id)
    status = instance.state.status
    report = _as_event(command)
    if report == instance.state.report or status == command.status == "stopped":
        return InstanceResult(instance.id)
    if command.status != status and command.status not in STATUSES[status]:
        raise Refusal("invalid_transition", f"instance {instance.id} is {status} and cannot become {command.status}")
    if command.status == "ready" and (command.endpoints or {}).keys() != instance.state.ports:
        ports = ", ".join(sorted(instance.state.ports)) or "none"
        raise Refusal("wrong_endpoints", f"instance {instance.id} has endpoints of exactly these ports: {ports}")
    tx.append(instance, report)
    return InstanceResult(instance.id)


async def _secret_version(tx: Transaction, env: Aggregate[Env]) -> int | None:
    """Give the version of the environment's secret values as of now; None if it has none."""
    secret = await read_bundle(tx, env.id)
    return secret.state.version if secret else None


async def _is_on_lost_node(tx: Transaction, instance: Aggregate[Instance]) -> bool:
    node = await tx.read(Node, str(instance.ids.node_id))
    return node is None or node.state.is_lost


def _as_event(command: ReportStatus) -> InstanceStatusChanged:
    """Give the report as the event has it; no endpoints and an empty map of them are one and the same."""
    endpoints = {name: events.Endpoint(each.host, each.port) for name, each in (command.endpoints or {}).items()}
    return InstanceStatusChanged(
        status=command.status,
        endpoints=endpoints or None,
        reason_code=command.reason_code,
        exit_code=command.exit_code,
        message=command.message,
    )


HANDLERS = (
    Handler(name="instance.allocate", command=AllocateInstance, handle=allocate_instance, result=InstanceResult),
    Handler(
        name="instance.set_desired_state",
        command=SetDesiredState,
        handle=set_desired_state,
        result=InstanceResult,
        target="instance_id",
    ),
    Handler(
        name="instance.report_status",
        command=ReportStatus,
        handle=report_status,
        result=InstanceResult,
        target="instance_id",
    ),
)
