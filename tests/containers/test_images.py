"""The images: how large, whose, and what is in them; and what the containers need to start and to idle."""

import json
from datetime import datetime

import pytest

from support.containers import SERVICES, Composed, Container, is_healthy, wait_until

IMAGES = ("command", "projector", "query", "scheduler", "cli")
BASE = "python:3.13-slim-trixie"
ABOVE_BASE_MB = 120
READY_S, IDLE_MIB = 10.0, 80
# What an image may hold of this repository; `keelson.` is one namespace.
SHARED = {"access", "events", "log", "settings"}
OF_SERVICES = SHARED | {"service", "views"}
BESIDES = {"cli": SHARED, "scheduler": SHARED | {"service", "client"}}
HOLDS = {name: {name, *BESIDES.get(name, OF_SERVICES)} for name in IMAGES}

_LIST = """
import json, pathlib, keelson
print(json.dumps([each.name for folder in keelson.__path__ for each in pathlib.Path(folder).iterdir()]))
"""

_READ_SECRETS = """
import json, pathlib
folder = pathlib.Path("/secrets")
print(json.dumps({str(each.relative_to(folder)): each.read_text() for each in folder.glob("*/*")}))
"""


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_small_and_holds_one_service_alone(stack: Composed, name: str) -> None:
    image, base = stack.engine.images.get(f"keelson-{name}:test"), stack.engine.images.get(BASE)
    above = (image.attrs["Size"] - base.attrs["Size"]) / 1e6
    print(f"\nimage of {name}: {above:.0f} MB above its base")  # noqa: T201
    assert above <= ABOVE_BASE_MB
    found = stack.engine.containers.run(image, entrypoint=["python", "-c", _LIST], remove=True)
    assert set(json.loads(found)) == HOLDS[name]
    for program in ("curl", "uv"):
        found = stack.engine.containers.run(
            image, entrypoint=["sh", "-c", f"command -v {program} || echo none"], remove=True
        )
        assert found.strip() == b"none"


@pytest.mark.parametrize("name", [*IMAGES, "front"])
def test_an_image_says_what_it_is_and_is_not_roots(stack: Composed, name: str) -> None:
    config = stack.engine.images.get(f"keelson-{name}:test").attrs["Config"]
    label = "org.opencontainers.image."
    assert config["Labels"][f"{label}title"] == f"keelson-{name}"
    assert config["Labels"][f"{label}licenses"] == "Apache-2.0"
    assert len(config["Labels"][f"{label}revision"]) >= 7
    assert all(config["Labels"][label + each] for each in ("description", "version"))
    assert int(config["User"].partition(":")[0]) > 10000
    assert ("Healthcheck" in config) is (name != "cli")


@pytest.mark.parametrize("service", [*SERVICES, "front", "postgres"])
def test_a_container_can_do_nothing_but_its_work(stack: Composed, service: str) -> None:
    (container,) = stack.replicas(service)[:1]
    host = container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    code, _ = container.exec_run(["touch", "/anywhere"])
    assert code != 0


def test_only_the_front_is_reached_and_on_loopback_alone(stack: Composed) -> None:
    published = {
        service: [port["HostIp"] for ports in each.ports.values() for port in ports or []]
        for service in (*SERVICES, "front", "postgres")
        for each in stack.replicas(service)
    }
    assert published.pop("front") == ["127.0.0.1", "127.0.0.1"]
    assert not any(published.values())


def test_no_secret_is_in_what_the_engine_or_the_logs_show(stack: Composed) -> None:
    """Neither the operator's token nor a key or a password, by no container; those that have ended are shown too."""
    found = stack.engine.containers.run(
        "keelson-cli:test",
        entrypoint=["python", "-c", _READ_SECRETS],
        user="0:0",
        volumes=[f"{stack.project}_secrets:/secrets:ro"],
        remove=True,
    )
    files: dict[str, str] = json.loads(found)
    assert files["bootstrap/operator_token"] == stack.operator_token
    assert files["scheduler/token"] == files["scheduler-principal/operator_token"] != stack.operator_token
    assert {"command/idempotency_secret", "command/secret_keys", "command/digest_key"} < files.keys()
    # A key has a name before it, which is no secret.
    secrets = {text.rpartition(":")[2] for text in files.values()}
    shown = json.dumps([each.attrs for each in stack.containers()])
    logs = stack.compose("logs", "--no-color")
    assert "/run/secrets/operator_token" in shown
    assert "an operator of the platform" in logs
    told = shown + logs + stack.compose("config")
    assert min(len(secret) for secret in secrets) > 20
    assert not [secret for secret in secrets if secret in told]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_soon_and_idles_small(stack: Composed, service: str) -> None:
    (container,) = stack.replicas(service)[:1]
    container.restart()
    wait_until(lambda: is_healthy(container), 30)
    ready_s, idle_mib = _serving_after_s(container), _memory_mib(container)
    print(f"\n{service}: serves {ready_s:.1f} s after its start, idles at {idle_mib:.0f} MiB")  # noqa: T201
    assert ready_s <= READY_S
    assert idle_mib <= IDLE_MIB


def _serving_after_s(container: Container) -> float:
    """Give the time from a container's start to its saying that it serves, by the engine's clock."""
    lines = container.logs(timestamps=True).decode().splitlines()
    serving = [line.partition(" ")[0] for line in lines if "service_serving" in line][-1]
    return (_time(serving) - _time(container.attrs["State"]["StartedAt"])).total_seconds()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text[:26] + "+00:00")


def _memory_mib(container: Container) -> float:
    """Give the memory in use, without files that the kernel keeps while nobody needs the room."""
    memory = container.stats(stream=False)["memory_stats"]
    cached = memory["stats"].get("inactive_file", memory["stats"].get("total_inactive_file", 0))
    return float(memory["usage"] - cached) / 2**20
