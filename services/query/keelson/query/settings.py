"""The query service's settings."""

from keelson.service.settings import Port, Settings


class QuerySettings(Settings, frozen=True, kw_only=True):
    """What the query service needs; `database_url` is of the role keelson_query."""

    port: Port = 8082
