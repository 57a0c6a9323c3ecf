"""The registry: which commands exist, and which aggregates they are about."""

from keelson.command.domain import (
    app,
    deploy,
    env,
    instance,
    member,
    node,
    org,
    principal,
    project,
    release,
    rollback,
    route,
    secret,
)
from keelson.command.handlers import Handler
from keelson.command.state import State

# One line per aggregate.
MODULES = (org, member, principal, project, app, env, release, deploy, route, node, instance, secret, rollback)

STATES: dict[str, type[State]] = {
    each.aggregate_type: each
    for module in MODULES
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, State) and each is not State
}

HANDLERS: dict[str, Handler] = {handler.name: handler for module in MODULES for handler in module.HANDLERS}
