"""What the scheduler can be told."""

from typing import Annotated

from msgspec import Meta

from keelson.scheduler.domain.rollout import Bounds
from keelson.service.settings import ServerSettings
from keelson.settings import Port, Seconds, Token

ServiceUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/]+/?$", extra={"expected": "a URL http://HOST:PORT"})]


class SchedulerSettings(ServerSettings, frozen=True, kw_only=True):
    """What the scheduler needs: the two APIs, and a credential with the scope `operator`. It has no database."""

    port: Annotated[Port, Meta(description="port to listen on")] = 8084
    command_url: Annotated[ServiceUrl, Meta(description="where the command service answers")]
    query_url: Annotated[ServiceUrl, Meta(description="where the query service answers")]
    token: Annotated[Token, Meta(description="the credential of a principal with the scope `operator`")]
    rollout_surge: Annotated[
        int,
        Meta(ge=0, le=100, description="instances of a process more than wanted that run while others are replaced"),
    ] = 1
    rollout_unavailable: Annotated[
        int, Meta(ge=0, le=100, description="instances of a process fewer than wanted that are ready meanwhile")
    ] = 0
    deploy_timeout_s: Annotated[
        Seconds, Meta(description="without any progress for that long, an open deploy has failed")
    ] = 300.0
    node_lost_after_s: Annotated[
        Seconds,
        Meta(description="without a heartbeat for that long, a node is offline, and its instances run elsewhere"),
    ] = 12.0

    def __post_init__(self) -> None:
        if self.rollout_surge + self.rollout_unavailable == 0:
            raise ValueError(
                "KEELSON_ROLLOUT_SURGE and KEELSON_ROLLOUT_UNAVAILABLE are both 0: nothing could be replaced"
            )

    @property
    def bounds(self) -> Bounds:
        """The bounds of rollouts."""
        return Bounds(surge=self.rollout_surge, unavailable=self.rollout_unavailable)
