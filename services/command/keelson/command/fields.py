"""The types of commands' fields: what a published schema can state is refused by it, before any handler runs."""

from functools import cache
from typing import Annotated

import msgspec
from msgspec import Meta

from keelson.events.ids import id_pattern

_LABEL = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"

Name = Annotated[str, Meta(pattern=_LABEL, description="lower-case letters, digits and dashes, 1 to 63 of them")]
ProcessName = Annotated[str, Meta(pattern=_LABEL)]
PortName = Annotated[str, Meta(pattern=_LABEL)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$(?!\n)")]
Text = Annotated[str, Meta(max_length=500)]

# RFC 1123 (2.1) with RFC 5890's labels of ASCII: at least two, so that nobody holds a whole top-level domain, and the
# last begins with a letter, so that no address (nor what a browser reads as one, 1.2.3.0x4) is taken for a name.
_HOST_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
Hostname = Annotated[
    str,
    Meta(
        pattern=rf"^({_HOST_LABEL}\.)+[A-Za-z]([A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?$(?!\n)",
        max_length=253,
        description="two or more labels, in whichever case; it is kept in lower case",
    ),
]

OrgId = Annotated[str, Meta(pattern=id_pattern("org"))]
ProjectId = Annotated[str, Meta(pattern=id_pattern("project"))]
AppId = Annotated[str, Meta(pattern=id_pattern("app"))]
EnvId = Annotated[str, Meta(pattern=id_pattern("env"))]
ReleaseId = Annotated[str, Meta(pattern=id_pattern("release"))]
DeployId = Annotated[str, Meta(pattern=id_pattern("deploy"))]
RouteId = Annotated[str, Meta(pattern=id_pattern("route"))]

Image = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-zA-Z0-9._:/-]{0,253}[a-zA-Z0-9])?@sha256:[0-9a-f]{64}$(?!\n)",
        description="an image pinned by its digest",
    ),
]

# What a command's result shows once: `token: Annotated[str | None, ONCE]`. It is never kept: a replay has null there.
ONCE = Meta(extra={"once": True}, description="shown once: null when the answer is given again under its key")


@cache
def once_only(result: type[msgspec.Struct]) -> tuple[str, ...]:
    """Name the fields of a result that are shown once."""
    return tuple(
        field.name
        for field in msgspec.structs.fields(result)
        if any((each.extra or {}).get("once") for each in getattr(field.type, "__metadata__", ()))
    )
