"""The projector's settings."""

from typing import Annotated

from msgspec import Meta

from keelson.service.settings import Port, Seconds, Settings


class ProjectorSettings(Settings, frozen=True, kw_only=True):
    """What the projector needs; `database_url` is of the role keelson_projector, which owns the views.

    Page sizes are in events. `lock_timeout_s` bounds the wait for a rebuild's swap.
    """

    port: Port = 8083
    page_size: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    lagging_page_size: Annotated[int, Meta(ge=1, le=100_000)] = 5000
    poll_interval_s: Seconds = 1.0
    lock_timeout_s: Seconds = 2.0
