"""Scopes and roles: what they are called, and what each contains."""

from typing import Final

from keelson.events.org import Role

COLLECTIONS: Final = (
    *("org", "members", "principals", "projects", "apps", "envs"),
    *("releases", "deploys", "routes", "secrets", "instances", "audit"),
)
# By the type of aggregate; what is not here is no organisation's.
COLLECTION_OF: Final = {
    "org": "org",
    "principal": "principals",
    "project": "projects",
    "app": "apps",
    "env": "envs",
    "release": "releases",
    "deploy": "deploys",
    "route": "routes",
    "secret": "secrets",
    "instance": "instances",
}
READS: Final = frozenset(f"{collection}:read" for collection in COLLECTIONS)
WRITES: Final = frozenset(f"{collection}:write" for collection in COLLECTIONS)

# All that an admin may do.
EVERYTHING: Final = "*"
# A platform principal's only scope: everything, everywhere.
OPERATOR: Final = "operator"

ORG_SCOPES: Final = (*sorted(READS | WRITES), EVERYTHING)

_DEVELOPED = ("apps", "envs", "releases", "deploys", "routes", "secrets")

# What a role contains. An owner may what an admin may, and beside it make owners and principals with `*`.
SCOPES_OF_ROLE: Final[dict[Role, frozenset[str]]] = {
    "owner": READS | WRITES,
    "admin": READS | WRITES,
    "developer": READS | {f"{collection}:write" for collection in _DEVELOPED},
    "readonly": READS,
}


def expand(scopes: tuple[str, ...]) -> frozenset[str]:
    """Give all that scopes contain: who may write a collection may read it, and `*` is what an admin may."""
    if EVERYTHING in scopes:
        return SCOPES_OF_ROLE["admin"]
    written = {scope.removesuffix(":write") for scope in scopes if scope.endswith(":write")}
    return frozenset(scopes) | {f"{collection}:read" for collection in written}
