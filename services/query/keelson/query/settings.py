"""The query service's settings."""

from typing import Annotated

from msgspec import Meta

from keelson.service.settings import Settings
from keelson.settings import Port, Seconds


class QuerySettings(Settings, frozen=True, kw_only=True):
    """What the query service needs; `database_url` is of the role keelson_query."""

    port: Annotated[Port, Meta(description="port to listen on")] = 8082
    feed_max_streams: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="streams, and reads that wait, that may be open at once; organisations have half of them",
        ),
    ] = 5000
    feed_bookmark_interval_s: Annotated[
        Seconds, Meta(description="after so long a silence a stream says where it is, or that it is alive")
    ] = 15.0
    feed_send_timeout_s: Annotated[
        Seconds, Meta(description="what a client may take to take what it is sent, before it is cut off")
    ] = 10.0
    feed_ring_events: Annotated[
        int, Meta(ge=1, le=10_000_000, description="events that are kept in memory for streams that keep up")
    ] = 10_000
    feed_ring_bytes: Annotated[
        int, Meta(ge=1, description="what they may take, about; streams that are further behind read the database")
    ] = 67_108_864

    @property
    def files(self) -> int:
        """Likewise, with a connection for each stream."""
        return super().files + self.feed_max_streams
