"""Routes: which hostname leads to which port of an environment's process."""

from typing import ClassVar

import msgspec

from keelson.command.domain.env import Env
from keelson.command.fields import EnvId, Hostname, PortName, ProcessName, RouteId
from keelson.command.handlers import Command, Handler
from keelson.command.refusal import Refusal
from keelson.command.state import Aggregate, State
from keelson.command.transaction import Transaction
from keelson.events import Event
from keelson.events.route import RouteCreated, RouteDeleted, RouteUpdated


class Route(State, frozen=True, kw_only=True):
    """A route."""

    aggregate_type: ClassVar[str] = "route"
    noun: ClassVar[str] = "route"

    hostname: str
    process: str
    port: str

    @classmethod
    def evolve(cls, state: "Route | None", event: Event) -> "Route":
        """Give the state after an event."""
        match state, event:
            case None, RouteCreated(hostname=hostname, process=process, port=port):
                return cls(hostname=hostname, process=process, port=port)
            case Route(), RouteUpdated(hostname=hostname, process=process, port=port):
                return msgspec.structs.replace(state, hostname=hostname, process=process, port=port)
            case Route(), RouteDeleted():
                return msgspec.structs.replace(state, deleted=True)
            case _:
                raise TypeError(f"not an event of this route: {event.event_type}")


class CreateRoute(Command, frozen=True, kw_only=True):
    """Let a hostname, unique on the platform, lead to a port of a process of the environment's release."""

    env_id: EnvId
    hostname: Hostname
    process: ProcessName
    port: PortName
    route_id: RouteId | None = None


class UpdateRoute(Command, frozen=True, kw_only=True):
    """Change what is named of a route; a hostname that it gives up is free at once."""

    route_id: RouteId
    hostname: Hostname | None = None
    process: ProcessName | None = None
    port: PortName | None = None


class DeleteRoute(Command, frozen=True, kw_only=True):
    """Delete a route; its hostname is free at once."""

    route_id: RouteId


class RouteResult(msgspec.Struct, frozen=True):
    """Which route."""

    route_id: str


async def create_route(tx: Transaction, command: CreateRoute) -> RouteResult:
    """Create it, in a live environment that runs what it leads to."""
    env = await tx.get(Env, command.env_id)
    _require_port(env, command.process, command.port)
    route_id = await tx.new_id(Route, command.route_id)
    created = RouteCreated(hostname=command.hostname.lower(), process=command.process, port=command.port)
    tx.create(Route, route_id, env.ids, created)
    return RouteResult(route_id)


async def update_route(tx: Transaction, command: UpdateRoute) -> RouteResult:
    """Change it, unless it is so; what it leads to then must be there."""
    route = await tx.get(Route, command.route_id)
    hostname = (command.hostname or route.state.hostname).lower()
    process, port = command.process or route.state.process, command.port or route.state.port
    if (hostname, process, port) != (route.state.hostname, route.state.process, route.state.port):
        # It lives as long as the route does: an environment with routes is not deleted.
        env = await tx.get(Env, str(route.ids.env_id))
        _require_port(env, process, port)
        tx.append(route, RouteUpdated(hostname=hostname, process=process, port=port))
    return RouteResult(route.id)


async def delete_route(tx: Transaction, command: DeleteRoute) -> RouteResult:
    """Delete it."""
    route = await tx.get(Route, command.route_id)
    tx.append(route, RouteDeleted())
    return RouteResult(route.id)


def _require_port(env: Aggregate[Env], process: str, port: str) -> None:
    """Refuse what the environment's release has not; before its first deploy it has nothing."""
    if process not in env.state.ports:
        raise Refusal("unknown_process", f"the release of {env.id} has no process {process}")
    if port not in env.state.ports[process]:
        raise Refusal("unknown_port", f"the process {process} of {env.id} has no port {port}")


HANDLERS = (
    Handler(name="route.create", command=CreateRoute, handle=create_route, result=RouteResult),
    Handler(name="route.update", command=UpdateRoute, handle=update_route, result=RouteResult, target="route_id"),
    Handler(
        name="route.delete",
        command=DeleteRoute,
        handle=delete_route,
        result=RouteResult,
        target="route_id",
        needs_reason=True,
    ),
)
