"""The projector's settings."""

from typing import Annotated

from msgspec import Meta

from keelson.service.settings import Settings
from keelson.settings import Port, Seconds


class ProjectorSettings(Settings, frozen=True, kw_only=True):
    """What the projector needs; `database_url` is of the role keelson_projector, which owns the views."""

    port: Annotated[Port, Meta(description="port to listen on")] = 8083
    page_size: Annotated[int, Meta(ge=1, le=100_000, description="events of a page")] = 1000
    lagging_page_size: Annotated[int, Meta(ge=1, le=100_000, description="events of a page while behind")] = 5000
    poll_interval_s: Annotated[Seconds, Meta(description="how long a lost notification may go unnoticed")] = 1.0
    lock_timeout_s: Annotated[Seconds, Meta(description="wait for a lock, such as that of a rebuild's swap")] = 2.0
