"""The types of commands' fields: what a published schema can state is refused by it, before any handler runs."""

from typing import Annotated

from msgspec import Meta

from keelson.events.ids import id_pattern

_LABEL = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"

Name = Annotated[str, Meta(pattern=_LABEL, description="lower-case letters, digits and dashes, 1 to 63 of them")]
ProcessName = Annotated[str, Meta(pattern=_LABEL)]
PortName = Annotated[str, Meta(pattern=_LABEL)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$(?!\n)")]
Text = Annotated[str, Meta(max_length=500)]

OrgId = Annotated[str, Meta(pattern=id_pattern("org"))]
ProjectId = Annotated[str, Meta(pattern=id_pattern("project"))]
AppId = Annotated[str, Meta(pattern=id_pattern("app"))]
EnvId = Annotated[str, Meta(pattern=id_pattern("env"))]
ReleaseId = Annotated[str, Meta(pattern=id_pattern("release"))]
DeployId = Annotated[str, Meta(pattern=id_pattern("deploy"))]

Image = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-zA-Z0-9._:/-]{0,253}[a-zA-Z0-9])?@sha256:[0-9a-f]{64}$(?!\n)",
        description="an image pinned by its digest",
    ),
]
