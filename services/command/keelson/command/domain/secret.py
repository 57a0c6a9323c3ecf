"""Secrets: an environment's bundle of values, which events name and only the vault holds, encrypted."""

from typing import Annotated

import msgspec
from msgspec import Meta

from keelson.command.domain.env import Env
from keelson.command.domain.instance_state import Instance
from keelson.command.domain.secret_state import Secret, erase, get_values, read_bundle, set_version
from keelson.command.fields import ONCE, EnvId, InstanceId, SecretId, SecretValue, VariableName
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.transaction import Transaction
from keelson.events.secret import SecretCreated, SecretRevealed

# What all values of a bundle may have together, names included, in UTF-8; a process gets them as its environment, for
# which Linux has 2 MiB by default, with all that is not secret.
MAX_BYTES = 512 * 1024


class SetSecret(Command, frozen=True, kw_only=True):
    """Set secret values of an environment, beside those that it has; null removes one.

    A value has at most 32,768 characters, all of them together 512 KiB.
    """

    env_id: EnvId
    values: Annotated[dict[VariableName, SecretValue | None], Meta(min_length=1, max_length=1000)]

    def __repr__(self) -> str:
        return f"SetSecret(env_id={self.env_id!r})"


class DeleteSecret(Command, frozen=True, kw_only=True):
    """Delete an environment's secret values, of all versions, for good."""

    secret_id: SecretId


class RevealSecret(Command, frozen=True, kw_only=True):
    """Tell the node that runs an instance the values of the version that the instance names; nobody else is told."""

    instance_id: InstanceId


class SecretResult(msgspec.Struct, frozen=True):
    """Which secret, and the version that it has."""

    secret_id: str
    version: int


class RevealResult(msgspec.Struct, frozen=True):
    """A version and its values, which are told once: whoever needs them again asks again, under another key."""

    version: int
    values: Annotated[dict[str, str] | None, ONCE]


async def set_secret(tx: Transaction, command: SetSecret) -> SecretResult:
    """Merge the values into the environment's bundle, as a new version unless it has them."""
    env = await tx.get(Env, command.env_id)
    secret = await read_bundle(tx, env.id)
    before = await get_values(tx, secret) if secret else {}
    merged = {name: value for name, value in {**before, **command.values}.items() if value is not None}
    if secret is not None and merged == before:
        return SecretResult(secret.id, secret.state.version)
    _require_room(merged)
    if secret is None:
        secret = tx.create(Secret, await tx.new_id(Secret, None), env.ids, SecretCreated())
    secret = set_version(tx, secret, merged)
    return SecretResult(secret.id, secret.state.version)


async def delete_secret(tx: Transaction, command: DeleteSecret) -> SecretResult:
    """Delete it and erase its values."""
    secret = await tx.get(Secret, command.secret_id)
    erase(tx, secret)
    return SecretResult(secret.id, secret.state.version)


async def reveal_secret(tx: Transaction, command: RevealSecret) -> RevealResult:
    """Tell the values, and that they were told."""
    instance = await tx.get(Instance, command.instance_id)
    version, node_id = instance.state.secret_version, str(instance.ids.node_id)
    if instance.state.status == "stopped" or instance.state.desired_state == "stopped":
        raise Refusal("instance_stopped", f"instance {instance.id} has stopped, or should")
    secret = await read_bundle(tx, str(instance.ids.env_id)) if version is not None else None
    values = await tx.open_secret(secret.id, version) if secret is not None and version is not None else None
    if secret is None or version is None or values is None:
        raise Refusal("not_found", f"there is no secret for instance {instance.id}")
    tx.append(secret, SecretRevealed(version=version, node_id=node_id, instance_id=instance.id))
    return RevealResult(version, values)


def _require_room(values: dict[str, str]) -> None:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
    if size > MAX_BYTES:
        raise Refusal("secret_too_large", f"all values together would have {size} bytes, {MAX_BYTES} are the most")


HANDLERS = (
    Handler(name="secret.set", command=SetSecret, handle=set_secret, result=SecretResult),
    Handler(
        name="secret.delete",
        command=DeleteSecret,
        handle=delete_secret,
        result=SecretResult,
        target="secret_id",
        needs_reason=True,
    ),
    Handler(name="secret.reveal", command=RevealSecret, handle=reveal_secret, result=RevealResult),
)
