"""The registry: which commands exist."""

from keelson.command.domain import app, deploy, env, org, project, release, route
from keelson.command.handlers import Handler

# One line per aggregate.
MODULES = (org, project, app, env, release, deploy, route)

HANDLERS: dict[str, Handler] = {handler.name: handler for module in MODULES for handler in module.HANDLERS}
