"""The types of commands' fields: what a published schema can state is refused by it, before any handler runs."""

from datetime import datetime
from functools import cache
from typing import Annotated

import msgspec
from msgspec import Meta

from keelson.access.scopes import COLLECTIONS
from keelson.events.ids import id_pattern

_LABEL = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"

Name = Annotated[str, Meta(pattern=_LABEL, description="lower-case letters, digits and dashes, 1 to 63 of them")]
ProcessName = Annotated[str, Meta(pattern=_LABEL)]
PortName = Annotated[str, Meta(pattern=_LABEL)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$(?!\n)")]
# No more than Linux takes of one variable (128 KiB), also where each character takes four bytes.
SecretValue = Annotated[str, Meta(max_length=32_768, pattern=r"^[^\x00]*$")]
# PostgreSQL keeps no NUL.
Text = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*$")]

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

# What HTML takes for an e-mail address (WHATWG, 4.10.5.1.5), with RFC 5321's lengths (4.5.3.1) and a domain of two
# labels or more. ASCII alone, so that lower case is the same everywhere.
Email = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_HOST_LABEL}(\.{_HOST_LABEL})+$(?!\n)",
        max_length=254,
        description="an e-mail address; it names the same person in upper and lower case",
    ),
]
PersonName = Annotated[str, Meta(min_length=1, max_length=200)]
Scope = Annotated[
    str,
    Meta(
        pattern=rf"^(\*|operator|({'|'.join(COLLECTIONS)}):(read|write))$(?!\n)",
        description="what it may do; * is all that an admin may, operator everything on the platform",
    ),
]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its offset")]
Host = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9:])?$(?!\n)", description="a name or an IP address"),
]
CpuMillis = Annotated[int, Meta(ge=1, le=10_000_000, description="thousandths of a CPU")]
MemoryBytes = Annotated[int, Meta(ge=1, le=2**53)]

OrgId = Annotated[str, Meta(pattern=id_pattern("org"))]
MemberId = Annotated[str, Meta(pattern=id_pattern("member"))]
PrincipalId = Annotated[str, Meta(pattern=id_pattern("principal"))]
CredentialId = Annotated[str, Meta(pattern=id_pattern("credential"))]
ProjectId = Annotated[str, Meta(pattern=id_pattern("project"))]
AppId = Annotated[str, Meta(pattern=id_pattern("app"))]
EnvId = Annotated[str, Meta(pattern=id_pattern("env"))]
ReleaseId = Annotated[str, Meta(pattern=id_pattern("release"))]
DeployId = Annotated[str, Meta(pattern=id_pattern("deploy"))]
SecretId = Annotated[str, Meta(pattern=id_pattern("secret"))]
RouteId = Annotated[str, Meta(pattern=id_pattern("route"))]
NodeId = Annotated[str, Meta(pattern=id_pattern("node"))]
InstanceId = Annotated[str, Meta(pattern=id_pattern("instance"))]

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
