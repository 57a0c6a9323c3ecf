"""The settings that all services have in common, and those of services that work in the database."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from keelson.service.open_files import SPARE
from keelson.settings import (
    DatabasePassword,
    DatabaseUrl,
    DeclaredSettings,
    OperatorToken,
    Port,
    Seconds,
    WorkDatabase,
    complete_url,
    holds_password,
    with_password,
)


class ServerSettings(DeclaredSettings, frozen=True, kw_only=True):
    """What every service is told of how it is reached and how it stops; a service adds its fields in a subclass."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port to listen on")]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="what is less than that is not logged")
    ] = "info"
    rate_limit_per_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="requests a second that each replica takes of an actor that is no operator; 0 is no limit",
        ),
    ] = 50.0
    rate_burst: Annotated[int, Meta(ge=1, le=1_000_000, description="of them, how many at once after a pause")] = 200
    receive_deadline_s: Annotated[Seconds, Meta(description="what a request's head may take to arrive")] = 10.0
    body_deadline_s: Annotated[Seconds, Meta(description="what a request's body may take to arrive")] = 10.0
    drain_delay_s: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="after SIGTERM, not ready but answering: longer than a load balancer takes to see it",
        ),
    ] = 0.0
    shutdown_grace_s: Annotated[Seconds, Meta(description="after that, what requests in flight may take")] = 10.0

    @property
    def files(self) -> int:
        """How many open files the service needs for what these settings promise."""
        return SPARE


class Settings(ServerSettings, frozen=True, kw_only=True):
    """What all services that work in the database are told besides."""

    database_url: WorkDatabase
    database_password: DatabasePassword = ""
    listen_database_url: Annotated[
        DatabaseUrl,
        Meta(
            description="the database for LISTEN, by a connection of its own, best a direct one; by default the other"
        ),
    ] = ""
    operator_token: OperatorToken = ""
    pool_size: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="connections to the database at most; a listener, and the writer of `command`, come on top",
        ),
    ] = 10
    acquire_timeout_s: Annotated[Seconds, Meta(description="wait for one of the pool's connections")] = 2.0
    statement_timeout_s: Annotated[Seconds, Meta(description="what a statement may take")] = 5.0

    @property
    def files(self) -> int:
        """Likewise, with the connections to the database."""
        return super().files + self.pool_size

    def __post_init__(self) -> None:
        listen_url = self.listen_database_url
        if listen_url and self.database_password and not holds_password(listen_url):
            listen_url = with_password(listen_url, self.database_password)
        url = complete_url(self.database_url, self.database_password)
        msgspec.structs.force_setattr(self, "database_url", url)
        msgspec.structs.force_setattr(self, "listen_database_url", listen_url or url)
