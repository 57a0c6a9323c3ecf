"""The limits of the containers fit what runs in them: connections and memory of the front and of query (F32, F45)."""

import re

from keelson.query.feed.chunks import MAX_CHUNK_BYTES
from keelson.query.settings import QuerySettings
from keelson.service.streaming import MAX_UNSENT_BYTES
from support.repository import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
FRONT = (ROOT / "deploy/haproxy/haproxy.cfg").read_text(encoding="utf-8")

MIB = 2**20
# What docs/feed.md says: the process, a stream that waits, and one whose client takes nothing. That one holds a chunk,
# the same as HTTP has it, and what allocating both leaves; the kernel twice what it is told.
IDLE_BYTES = 80 * MIB
WAITING_BYTES = 29 * 1024
BEHIND_BYTES = 4 * MAX_CHUNK_BYTES + 2 * MAX_UNSENT_BYTES
# Replicas of query that the front has connections for, and half as many again for requests.
REPLICAS = 4
FRONT_IDLE_BYTES = 80 * MIB


def setting_of(section: str, name: str) -> int:
    """Give a number of a section of the front's configuration."""
    [body] = re.findall(rf"^{section}\n((?:    .*\n|\n)+)", FRONT, re.MULTILINE)
    [number] = re.findall(rf"^    {name} (\d+)$", body, re.MULTILINE)
    return int(number)


def of_container(service: str, pattern: str) -> int:
    """Give a number of a service's part of the compose file."""
    [body] = re.findall(rf"^  {service}:\n((?:    .*\n|\n)+)", COMPOSE, re.MULTILINE)
    [number] = re.findall(pattern, body)
    return int(number)


COMMANDS = setting_of("frontend command from way_in", "maxconn")
QUERIES = setting_of("frontend query from way_in", "maxconn")
STREAMS = of_container("query", r'KEELSON_FEED_MAX_STREAMS: "(\d+)"')


def memory_of(service: str) -> int:
    """Give how many bytes of memory a container may have."""
    return of_container(service, r"memory: (\d+)M") * MIB


def test_f45_however_many_streams_there_are_the_front_has_connections_for_commands() -> None:
    assert setting_of("global", "maxconn") > COMMANDS + QUERIES


def test_f32_the_front_has_a_connection_for_each_stream_and_for_requests_besides() -> None:
    assert QUERIES >= REPLICAS * STREAMS * 1.5


def test_f32_query_has_the_memory_that_its_bounds_allow_it_to_need() -> None:
    """All streams open, and each of them waiting for a client that takes nothing of a chunk that nobody shares."""
    ring_bytes = QuerySettings(database_url="postgresql://localhost/nowhere").feed_ring_bytes
    assert IDLE_BYTES + ring_bytes + STREAMS * (WAITING_BYTES + BEHIND_BYTES) <= memory_of("query")


def test_f35_the_front_has_the_memory_for_a_buffer_of_each_connection() -> None:
    assert FRONT_IDLE_BYTES + (COMMANDS + QUERIES) * setting_of("global", "tune.bufsize") <= memory_of("front")
