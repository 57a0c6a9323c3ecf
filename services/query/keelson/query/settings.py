"""The query service's settings."""

from typing import Annotated

from msgspec import Meta

from keelson.service.settings import Settings
from keelson.settings import Port


class QuerySettings(Settings, frozen=True, kw_only=True):
    """What the query service needs; `database_url` is of the role keelson_query."""

    port: Annotated[Port, Meta(description="port to listen on")] = 8082
