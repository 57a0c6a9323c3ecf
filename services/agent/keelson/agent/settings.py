"""The agent's settings."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from keelson.settings import DeclaredSettings, Seconds, Secret


def read_labels(text: str) -> Mapping[str, str]:
    """Read `NAME=VALUE,NAME=VALUE`. Raises ValueError for anything else, and for a name that comes twice."""
    labels: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or name.strip() in labels:
            raise ValueError("not labels")
        labels[name.strip()] = value.strip()
    return labels


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_labels(text: str) -> None:
    read_labels(text)


ServiceUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/]+/?$", extra={"expected": "a URL http://HOST:PORT"})]
Labels = Annotated[str, Meta(extra={"expected": "NAME=VALUE, or several with commas between", "check": _check_labels})]
# Nothing to wait for is a way to wait as well.
Pause = Annotated[float, Meta(ge=0, le=3600, extra={"unit": "seconds"})]


class AgentSettings(DeclaredSettings, frozen=True, kw_only=True):
    """What an agent needs: where the services are, where it keeps its state, and what its node is like."""

    command_url: Annotated[ServiceUrl, Meta(description="where the command service answers")]
    query_url: Annotated[ServiceUrl, Meta(description="where the query service answers")]
    state: Annotated[str, Meta(min_length=1, description="folder of what the agent keeps: one for each node")]
    enrollment_token: Annotated[
        Secret, Meta(description="one-time token by which a new node enrols; of no use once it has enrolled")
    ] = ""
    node_name: Annotated[str, Meta(description="the node's name when it enrols; by default the machine's")] = ""
    cpu_millis: Annotated[
        int, Meta(ge=0, le=10_000_000, description="thousandths of a CPU that the node has to give; 0 is all it has")
    ] = 0
    memory_bytes: Annotated[
        int, Meta(ge=0, le=2**53, description="memory that the node has to give, in bytes; 0 is all it has")
    ] = 0
    labels: Annotated[Labels, Meta(description="labels of the node when it enrols, such as zone=a")] = ""
    address: Annotated[
        str, Meta(min_length=1, description="the node's name or address, by which others reach its instances")
    ] = "127.0.0.1"
    driver: Annotated[
        Literal["process", "simulated"], Meta(description="what runs instances: local processes, or nothing at all")
    ] = "process"
    process_root: Annotated[
        str, Meta(description="working directory of instances' commands; by default the agent's own")
    ] = ""
    heartbeat_interval_s: Annotated[Seconds, Meta(description="how often the node says that it is there")] = 3.0
    drain_s: Annotated[Pause, Meta(description="how long a draining instance still serves before it is stopped")] = 1.0
    stop_grace_s: Annotated[Seconds, Meta(description="from SIGTERM to SIGKILL, when an instance is stopped")] = 10.0
    boot_timeout_s: Annotated[Seconds, Meta(description="how long an instance may take to get ready")] = 60.0
    restart_backoff_first_s: Annotated[Seconds, Meta(description="before the first restart; doubled each time")] = 0.5
    restart_backoff_max_s: Annotated[Seconds, Meta(description="before a restart, at most")] = 30.0
    log_max_bytes: Annotated[
        int,
        Meta(
            ge=4096, le=2**40, description="size at which each of an instance's two logs is begun anew; one old is kept"
        ),
    ] = 10 * 2**20
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="what is less than that is not logged")
    ] = "info"

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "cpu_millis", self.cpu_millis or 1000 * (os.cpu_count() or 1))
        msgspec.structs.force_setattr(self, "memory_bytes", self.memory_bytes or _machine_memory())
