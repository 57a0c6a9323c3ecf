"""The rules of releases."""

import msgspec
import pytest

from keelson.command.domain.app import CreateApp
from keelson.command.domain.release import CreateRelease, Health, Port, Process, Source
from keelson.events import release as events
from keelson.events.app import AppCreated, AppDeleted
from keelson.events.release import ReleaseCreated
from support.specs import APP, APP_EXISTS, PROJECT, PROJECT_EXISTS, RELEASE, Fact, given, id_of, minted

IMAGE = "registry.example/shop@sha256:" + "0" * 64
WEB = Process(command=["serve"])
# The same, all defaults resolved.
WEB_RESOLVED = events.Process(command=("serve",), cpu_millis=250, memory_bytes=268_435_456)
OTHER_APP = id_of("app", 2)


def create(app_id: str = APP, release_id: str | None = None) -> CreateRelease:
    return CreateRelease(app_id=app_id, image=IMAGE, processes={"web": WEB}, release_id=release_id)


def created(number: int, release_id: str = RELEASE, app_id: str = APP) -> Fact:
    resolved = ReleaseCreated(number=number, image=IMAGE, processes={"web": WEB_RESOLVED})
    return (release_id, resolved, {"app_id": app_id})


def test_the_first_release_of_an_app_has_number_1() -> None:
    release = minted("release")
    outcome = given(*APP_EXISTS).when(create()).then(created(1, release))
    outcome.answering(release_id=release, number=1).taking((f"release.number:{APP}", "1"))


def test_releases_are_numbered_without_gaps() -> None:
    outcome = given(*APP_EXISTS, created(1), created(2, id_of("release", 2))).when(create())
    outcome.then(created(3, minted("release"))).answering(release_id=minted("release"), number=3)


def test_each_app_has_its_own_numbers() -> None:
    other: Fact = (OTHER_APP, AppCreated(name="blog"), {"app_id": OTHER_APP})
    outcome = given(*APP_EXISTS, other, created(1), created(2, id_of("release", 2))).when(create(OTHER_APP))
    outcome.then(created(1, minted("release"), OTHER_APP)).taking((f"release.number:{OTHER_APP}", "1"))


def test_in_a_bundle_the_numbers_go_on() -> None:
    app = CreateApp(project_id=PROJECT, name="shop", app_id=APP)
    given(*PROJECT_EXISTS).when(app, create(), create(), create()).then(
        (APP, AppCreated(name="shop")),
        created(1, minted("release", 1)),
        created(2, minted("release", 2)),
        created(3, minted("release", 3)),
    ).answering(release_id=minted("release", 3), number=3)


def test_its_app_must_be_there() -> None:
    given(*PROJECT_EXISTS).when(create()).then_refused("not_found")
    given(*APP_EXISTS, (APP, AppDeleted())).when(create()).then_refused("not_found")


def test_an_id_that_exists_is_taken() -> None:
    given(*APP_EXISTS, created(1)).when(create(release_id=RELEASE)).then_refused("id_taken")


def test_the_event_says_everything_that_was_said() -> None:
    command = CreateRelease(
        app_id=APP,
        release_id=RELEASE,
        image=IMAGE,
        source=Source(repository="git.example/shop", commit="abc"),
        processes={
            "web": Process(
                command=["serve", "--fast"],
                ports=[Port(name="http", port=8080)],
                cpu_millis=500,
                memory_bytes=2**30,
                health=Health(port="http", path="/healthz", interval_s=3, timeout_s=2),
                needs_secrets=True,
            )
        },
    )
    web = events.Process(
        command=("serve", "--fast"),
        ports=(events.Port("http", 8080),),
        cpu_millis=500,
        memory_bytes=2**30,
        health=events.Health(path="/healthz", port="http", interval_s=3, timeout_s=2),
        needs_secrets=True,
    )
    source = events.Source(repository="git.example/shop", commit="abc")
    expected = ReleaseCreated(number=1, image=IMAGE, processes={"web": web}, source=source)
    given(*APP_EXISTS).when(command).then((RELEASE, expected))


def test_the_defaults_of_health_are_resolved() -> None:
    process = Process(command=["x"], ports=[Port(name="p", port=1)], health=Health(port="p"))
    outcome = given(*APP_EXISTS).when(CreateRelease(app_id=APP, image=IMAGE, processes={"x": process}))
    resolved = events.Process(
        command=("x",),
        ports=(events.Port("p", 1),),
        cpu_millis=250,
        memory_bytes=268_435_456,
        health=events.Health(path=None, port="p", interval_s=10, timeout_s=5),
    )
    outcome.then((minted("release"), ReleaseCreated(number=1, image=IMAGE, processes={"x": resolved})))


@pytest.mark.parametrize(
    "process",
    [
        {"command": []},
        {"command": "serve"},
        {"command": ["serve"], "ports": [{"name": "http", "port": 0}]},
        {"command": ["serve"], "ports": [{"name": "http", "port": 65536}]},
        {"command": ["serve"], "ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]},
        {"command": ["serve"], "health": {"port": "http"}},
        {"command": ["serve"], "cpu_millis": 0},
        {"command": ["serve"], "memory_bytes": 0},
        {"command": ["serve"], "nice": 1},
    ],
)
def test_a_process_that_cannot_be_run_fits_no_schema(process: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"app_id": APP, "image": IMAGE, "processes": {"web": process}}, CreateRelease)


@pytest.mark.parametrize(
    "image",
    ["", "shop", "shop:latest", "shop@sha256:" + "0" * 63, "shop@sha256:" + "G" * 64, f"{IMAGE}\n", f" {IMAGE}"],
)
def test_an_image_that_is_not_pinned_fits_no_schema(image: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"app_id": APP, "image": image, "processes": {"web": {"command": ["x"]}}}, CreateRelease)
