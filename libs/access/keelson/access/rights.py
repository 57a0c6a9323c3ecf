"""The one table of rights: who may send which command, and who may read what. Everything else is derived from it.

The command service asks it before any handler runs, the query service before it reads; the documentation and a test
that tries every row as everybody are generated from it. What has no entry is refused to all.
"""

from typing import Final, Literal

import msgspec

# scope: who has all the scopes, within the organisation of what the command is about.
# operator: operators alone.
# node: the node that the thing is on, and nobody else: a secret is not for operators.
# enrollment: who has a token for it, in the body.
Who = Literal["scope", "operator", "node", "enrollment"]


class Right(msgspec.Struct, frozen=True, kw_only=True):
    """Who may send a command.

    `on` names the field with the id of what the command is about: what the actor must see, else it is not found. Where
    that field is left out of a command, or there is none, the command is the operators'. `own` names the field that may
    name the actor itself, who then needs no scope.
    """

    who: Who
    scopes: tuple[str, ...] = ()
    on: str | None = None
    own: str | None = None


def _scope(*scopes: str, on: str, own: str | None = None) -> Right:
    return Right(who="scope", scopes=scopes, on=on, own=own)


def _operator(on: str | None = None) -> Right:
    return Right(who="operator", on=on)


COMMANDS: Final[dict[str, Right]] = {
    "org.create": _operator(),
    "org.rename": _scope("org:write", on="org_id"),
    "org.set_quota": _operator(on="org_id"),
    "org.add_member": _scope("members:write", on="org_id"),
    "org.change_member_role": _scope("members:write", on="org_id"),
    "org.remove_member": _scope("members:write", on="org_id", own="member_id"),
    "org.erase_member": _operator(on="org_id"),
    "org.issue_credential": _scope("members:write", on="org_id", own="member_id"),
    "org.revoke_credential": _scope("members:write", on="org_id", own="member_id"),
    "principal.create": _scope("principals:write", on="org_id"),
    "principal.set_scopes": _scope("principals:write", on="principal_id"),
    "principal.issue_credential": _scope("principals:write", on="principal_id"),
    "principal.revoke_credential": _scope("principals:write", on="principal_id"),
    "principal.delete": _scope("principals:write", on="principal_id"),
    "project.create": _scope("projects:write", on="org_id"),
    "project.rename": _scope("projects:write", on="project_id"),
    "project.delete": _scope("projects:write", on="project_id"),
    "app.create": _scope("apps:write", on="project_id"),
    "app.rename": _scope("apps:write", on="app_id"),
    "app.delete": _scope("apps:write", on="app_id"),
    "env.create": _scope("envs:write", on="app_id"),
    "env.rename": _scope("envs:write", on="env_id"),
    "env.delete": _scope("envs:write", on="env_id"),
    "env.scale": _scope("envs:write", on="env_id"),
    "env.set_config": _scope("envs:write", on="env_id"),
    # It may put back all that there is in an environment.
    "env.rollback": _scope("envs:write", "deploys:write", "routes:write", "secrets:write", on="env_id"),
    "release.create": _scope("releases:write", on="app_id"),
    "deploy.create": _scope("deploys:write", on="env_id"),
    "deploy.set_status": _operator(on="deploy_id"),
    "route.create": _scope("routes:write", on="env_id"),
    "route.update": _scope("routes:write", on="route_id"),
    "route.delete": _scope("routes:write", on="route_id"),
    "secret.set": _scope("secrets:write", on="env_id"),
    "secret.delete": _scope("secrets:write", on="secret_id"),
    "secret.reveal": Right(who="node", on="instance_id"),
    "node.create_enrollment_token": _operator(),
    "node.enroll": Right(who="enrollment"),
    "node.set_state": _operator(on="node_id"),
    "node.set_capacity": _operator(on="node_id"),
    "node.remove": _operator(on="node_id"),
    "instance.allocate": _operator(on="env_id"),
    "instance.set_desired_state": _operator(on="instance_id"),
    "instance.report_status": Right(who="node", on="instance_id"),
}


# Commands that come without a credential: who sends them is told by the token in their body.
ENROLLING: Final = frozenset(name for name, right in COMMANDS.items() if right.who == "enrollment")


class ReadRight(msgspec.Struct, frozen=True, kw_only=True):
    """Who may read at a path: with the scope, what is of their organisation; `node`: also the node that the path names.

    Without a scope it is the operators'.
    """

    scope: str | None = None
    node: bool = False


# By the path's template. Who lacks the scope is refused a collection, and finds no single thing in it.
READS: Final[dict[str, ReadRight]] = {
    "/v1/orgs": ReadRight(scope="org:read"),
    "/v1/orgs/{id}": ReadRight(scope="org:read"),
    "/v1/members": ReadRight(scope="members:read"),
    "/v1/members/{id}": ReadRight(scope="members:read"),
    "/v1/members/{id}/credentials": ReadRight(scope="members:read"),
    "/v1/principals": ReadRight(scope="principals:read"),
    "/v1/principals/{id}": ReadRight(scope="principals:read"),
    "/v1/principals/{id}/credentials": ReadRight(scope="principals:read"),
    "/v1/projects": ReadRight(scope="projects:read"),
    "/v1/projects/{id}": ReadRight(scope="projects:read"),
    "/v1/apps": ReadRight(scope="apps:read"),
    "/v1/apps/{id}": ReadRight(scope="apps:read"),
    "/v1/envs": ReadRight(scope="envs:read"),
    "/v1/envs/{id}": ReadRight(scope="envs:read"),
    "/v1/envs/{id}/processes": ReadRight(scope="envs:read"),
    "/v1/envs/{id}/status": ReadRight(scope="envs:read"),
    "/v1/releases": ReadRight(scope="releases:read"),
    "/v1/releases/{id}": ReadRight(scope="releases:read"),
    "/v1/deploys": ReadRight(scope="deploys:read"),
    "/v1/deploys/{id}": ReadRight(scope="deploys:read"),
    "/v1/routes": ReadRight(scope="routes:read"),
    "/v1/routes/{id}": ReadRight(scope="routes:read"),
    "/v1/secrets": ReadRight(scope="secrets:read"),
    "/v1/secrets/{id}": ReadRight(scope="secrets:read"),
    "/v1/nodes": ReadRight(),
    "/v1/nodes/{id}": ReadRight(),
    "/v1/nodes/{id}/desired": ReadRight(node=True),
    "/v1/edge/desired": ReadRight(),
    "/v1/instances": ReadRight(scope="instances:read"),
    "/v1/instances/{id}": ReadRight(scope="instances:read"),
    "/v1/events": ReadRight(scope="audit:read"),
    "/v1/activity": ReadRight(scope="audit:read"),
    "/v1/history/{aggregate_id}": ReadRight(scope="audit:read"),
    "/v1/projections": ReadRight(),
}
