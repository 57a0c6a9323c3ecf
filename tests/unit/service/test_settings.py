"""Settings: read from the environment, complained about all at once, silent about secrets."""

from typing import Annotated

import pytest
from msgspec import Meta

from keelson.service.settings import Port, Secret, Settings, SettingsError

GOOD = {
    "KEELSON_DATABASE_URL": "postgresql://service:hidden@db/keelson",
    "KEELSON_PORT": "8081",
    "KEELSON_OPERATOR_TOKEN": "sixteen-or-more-characters",
}


class SomeSettings(Settings, frozen=True, kw_only=True):
    """The settings of a service."""

    port: Port = 8099
    signing_secret: Secret
    batch: Annotated[int, Meta(ge=1)] = 7


def test_defaults() -> None:
    settings = Settings.load(GOOD)
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8081, "info")
    assert settings.listen_database_url == settings.database_url == GOOD["KEELSON_DATABASE_URL"]


def test_values_are_converted_and_the_rest_of_the_environment_is_none_of_ours() -> None:
    environ = GOOD | {
        "KEELSON_LISTEN_DATABASE_URL": "postgres://direct/keelson",
        "KEELSON_POOL_SIZE": "3",
        "KEELSON_SHUTDOWN_GRACE_S": "0.5",
        "KEELSON_HOME": "/somewhere",
        "PATH": "/bin",
    }
    settings = Settings.load(environ)
    assert settings.listen_database_url == "postgres://direct/keelson"
    assert (settings.pool_size, settings.shutdown_grace_s) == (3, 0.5)


def test_a_service_adds_its_own_and_may_set_defaults() -> None:
    environ = {**GOOD, "KEELSON_SIGNING_SECRET": "s", "KEELSON_PORT": ""}
    settings = SomeSettings.load(environ)
    assert (settings.port, settings.signing_secret, settings.batch) == (8099, "s", 7)


def test_everything_wrong_is_told_at_once_and_no_secret_with_it() -> None:
    environ = {
        "KEELSON_DATABASE_URL": "mysql://u:canary@h/d",
        "KEELSON_PORT": "eighty",
        "KEELSON_OPERATOR_TOKEN": "canary",
        "KEELSON_LOG_LEVEL": "loud",
        "KEELSON_POOL_SIZE": "0",
        "KEELSON_ACQUIRE_TIMEOUT_S": "nan",
        "KEELSON_SHUTDOWN_GRACE_S": "inf",
        "KEELSON_BATCH": "1.5",
    }
    with pytest.raises(SettingsError) as caught:
        SomeSettings.load(environ)
    text = str(caught.value)
    assert "canary" not in text
    assert "\n" not in text
    for variable in [*environ, "KEELSON_SIGNING_SECRET"]:
        assert f"{variable}: " in text
    assert "KEELSON_SIGNING_SECRET: is not set" in text


def test_no_repr_shows_a_secret() -> None:
    environ = GOOD | {"KEELSON_SIGNING_SECRET": "canary", "KEELSON_LISTEN_DATABASE_URL": "postgres://u:canary@h/d"}
    settings = SomeSettings.load(environ)
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "canary" not in text
        assert "hidden" not in text
        assert GOOD["KEELSON_OPERATOR_TOKEN"] not in text
        assert "port=8081" in text
