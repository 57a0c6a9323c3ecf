"""An instance's spec, and its hash: the same whoever resolves it."""

import hashlib

import msgspec

from keelson.events.env import EnvProcess
from keelson.events.instance import hash_of, resolve_spec
from keelson.events.release import Health, Port, Process

IMAGE = "registry.example/shop@sha256:" + "0" * 64
PROCESS = Process(
    command=("serve", "--all"),
    ports=(Port("http", 8080),),
    cpu_millis=250,
    memory_bytes=1024,
    health=Health(path="/up", port="http"),
)


def test_a_spec_is_the_process_with_image_and_variables() -> None:
    spec = resolve_spec(IMAGE, PROCESS, {"MODE": "live"})

    assert (spec.image, spec.variables) == (IMAGE, {"MODE": "live"})
    assert (spec.command, spec.ports, spec.health) == (PROCESS.command, PROCESS.ports, PROCESS.health)
    assert (spec.cpu_millis, spec.memory_bytes) == (250, 1024)


def test_the_environments_process_resolves_as_the_releases_does() -> None:
    replicated = EnvProcess(**msgspec.structs.asdict(PROCESS), replicas=3)

    assert hash_of(resolve_spec(IMAGE, replicated, {})) == hash_of(resolve_spec(IMAGE, PROCESS, {}))


def test_the_hash_is_of_the_canonical_encoding_whatever_the_order_of_variables() -> None:
    one, other = (resolve_spec(IMAGE, PROCESS, each) for each in ({"A": "1", "B": "2"}, {"B": "2", "A": "1"}))

    canonical = msgspec.json.Encoder(order="sorted").encode(one)
    assert hash_of(one) == hash_of(other) == hashlib.sha256(canonical).hexdigest()


def test_any_other_variable_is_another_hash() -> None:
    assert hash_of(resolve_spec(IMAGE, PROCESS, {"A": "1"})) != hash_of(resolve_spec(IMAGE, PROCESS, {"A": "2"}))
