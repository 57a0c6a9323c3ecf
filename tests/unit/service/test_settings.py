"""Settings: read from the environment, complained about all at once, silent about secrets."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from keelson.service.settings import ServerSettings, Settings
from keelson.settings import Port, Secret, SettingsError, unknown_in, with_password
from keelson.settings.environment import MAX_FILE_BYTES

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
    assert "KEELSON_SIGNING_SECRET: is not set; expected text" in text
    assert "KEELSON_LOG_LEVEL: expected one of debug, error, info, warning" in text
    assert "KEELSON_POOL_SIZE: expected a whole number from 1 up to 1000" in text
    assert "KEELSON_ACQUIRE_TIMEOUT_S: expected a number of seconds over 0 up to 3600" in text
    assert "KEELSON_OPERATOR_TOKEN: expected text of at least 16 characters" in text
    assert "KEELSON_DATABASE_URL: expected a URL postgresql://ROLE@HOST:PORT/DATABASE" in text


def test_no_repr_shows_a_secret() -> None:
    environ = GOOD | {"KEELSON_SIGNING_SECRET": "canary", "KEELSON_LISTEN_DATABASE_URL": "postgres://u:canary@h/d"}
    settings = SomeSettings.load(environ)
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "canary" not in text
        assert "hidden" not in text
        assert GOOD["KEELSON_OPERATOR_TOKEN"] not in text
        assert "port=8081" in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with files of settings: good ones, and such as no setting can be read from."""
    (tmp_path / "token").write_bytes(b"from a file, canary\n")
    (tmp_path / "dos").write_bytes(b"8090\r\n\r\n")
    (tmp_path / "password").write_bytes(b" p@ss/w#rd? \n")
    (tmp_path / "short").write_bytes(b"canary")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "newline").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(b"canary \xff canary canary")
    (tmp_path / "large").write_bytes(b"c" * (MAX_FILE_BYTES + 1))
    return tmp_path


def test_any_setting_may_be_a_file(folder: Path) -> None:
    given = {name: value for name, value in GOOD.items() if name == "KEELSON_DATABASE_URL"}
    settings = Settings.load(
        given | {"KEELSON_OPERATOR_TOKEN_FILE": f"{folder}/token", "KEELSON_PORT_FILE": f"{folder}/dos"}
    )
    assert (settings.operator_token, settings.port) == ("from a file, canary", 8090)


def test_every_setting_may_be_a_file(tmp_path: Path) -> None:
    values = {
        **GOOD,
        "KEELSON_DATABASE_URL": "postgresql://service@db/keelson",
        "KEELSON_DATABASE_PASSWORD": "hidden",
        "KEELSON_LISTEN_DATABASE_URL": "postgresql://service@direct/keelson",
        "KEELSON_HOST": "::1",
        "KEELSON_LOG_LEVEL": "error",
        "KEELSON_POOL_SIZE": "3",
        "KEELSON_ACQUIRE_TIMEOUT_S": "1.5",
        "KEELSON_STATEMENT_TIMEOUT_S": "1.5",
        "KEELSON_RATE_LIMIT_PER_S": "1.5",
        "KEELSON_RATE_BURST": "3",
        "KEELSON_RECEIVE_DEADLINE_S": "1.5",
        "KEELSON_BODY_DEADLINE_S": "1.5",
        "KEELSON_DRAIN_DELAY_S": "1.5",
        "KEELSON_SHUTDOWN_GRACE_S": "1.5",
    }
    assert len(values) == len(msgspec.structs.fields(Settings))
    files = {}
    for name, value in values.items():
        (tmp_path / name).write_text(value)
        files[f"{name}_FILE"] = str(tmp_path / name)
    assert Settings.load(files) == Settings.load(values)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("missing", "cannot be read (No such file or directory)"),
        (".", "cannot be read (Is a directory)"),
        ("empty", "is empty"),
        ("newline", "is empty"),
        ("binary", "is not text in UTF-8"),
        ("large", f"holds more than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_a_file_that_does_not_do_is_named_and_not_shown(folder: Path, file: str, why: str) -> None:
    environ = {**GOOD, "KEELSON_OPERATOR_TOKEN": "", "KEELSON_OPERATOR_TOKEN_FILE": f"{folder}/{file}"}
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    assert str(caught.value) == f"wrong settings: KEELSON_OPERATOR_TOKEN_FILE: {folder}/{file} {why}"
    assert caught.value.__cause__ is None


def test_a_file_that_nobody_may_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _mode: str) -> None:
        raise PermissionError(13, "Permission denied")  # root, who may run the tests, may read everything

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SettingsError, match=r"KEELSON_PORT_FILE: \S+/dos cannot be read \(Permission denied\)"):
        Settings.load({**GOOD, "KEELSON_PORT": "", "KEELSON_PORT_FILE": f"{folder}/dos"})


def test_a_wrong_value_in_a_file_is_not_shown_either(folder: Path) -> None:
    files = {"KEELSON_LOG_LEVEL_FILE": f"{folder}/short", "KEELSON_OPERATOR_TOKEN_FILE": f"{folder}/short"}
    with pytest.raises(SettingsError) as caught:
        Settings.load({**GOOD, "KEELSON_OPERATOR_TOKEN": "", **files})
    assert "canary" not in str(caught.value)
    assert "KEELSON_LOG_LEVEL: expected one of" in str(caught.value)


def test_a_variable_and_its_file_are_one_too_many(folder: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({**GOOD, "KEELSON_PORT_FILE": f"{folder}/dos"})
    assert str(caught.value) == ("wrong settings: KEELSON_PORT: is set, and KEELSON_PORT_FILE is too; set one of them")


def test_a_password_comes_from_its_own_file_unencoded(folder: Path) -> None:
    environ = {
        **GOOD,
        "KEELSON_DATABASE_URL": "postgresql://service@db/keelson?sslmode=require",
        "KEELSON_DATABASE_PASSWORD_FILE": f"{folder}/password",
    }
    settings = Settings.load(environ)
    given = "password=%20p%40ss%2Fw%23rd%3F%20"
    assert settings.database_url == f"postgresql://service@db/keelson?sslmode=require&{given}"
    assert settings.listen_database_url == settings.database_url
    direct = Settings.load({**environ, "KEELSON_LISTEN_DATABASE_URL": "postgresql://service@direct/keelson"})
    assert direct.listen_database_url == f"postgresql://service@direct/keelson?{given}"
    other = Settings.load({**environ, "KEELSON_LISTEN_DATABASE_URL": "postgresql://service:other@direct/keelson"})
    assert other.listen_database_url == "postgresql://service:other@direct/keelson"
    assert "p@ss" not in repr(settings)
    assert "p%40ss" not in repr(settings)


@pytest.mark.parametrize("url", ["postgresql://a:canary@db/keelson", "postgresql://db/keelson?user=a&password=canary"])
def test_two_passwords_are_one_too_many(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({**GOOD, "KEELSON_DATABASE_URL": url, "KEELSON_DATABASE_PASSWORD": "canary"})
    assert str(caught.value) == ("wrong settings: KEELSON_DATABASE_PASSWORD: KEELSON_DATABASE_URL holds a password too")


@pytest.mark.parametrize("password", ["ca/nary", "1/canary", "ca#nary", "ca@nary", "ca?nary", "[canary"])
def test_a_url_that_would_be_taken_apart_wrongly_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({**GOOD, "KEELSON_DATABASE_URL": f"postgresql://service:{password}@db:5432/keelson"})
    assert "nary" not in str(caught.value)
    assert "percent-encoded" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://db",
        "postgresql://u@h1:1,h2:2/d",
        "postgresql://u@[::1]:5432/d",
        "postgresql://u@[::1]/d?sslmode=require",
        "postgresql:///d?host=/run/postgresql&user=u",
    ],
)
def test_urls_of_all_forms_do_and_take_a_password(url: str) -> None:
    assert Settings.load({**GOOD, "KEELSON_DATABASE_URL": url}).database_url == url
    given = Settings.load({**GOOD, "KEELSON_DATABASE_URL": url, "KEELSON_DATABASE_PASSWORD": "p"})
    assert given.database_url == with_password(url, "p")
    assert given.database_url.endswith(("?password=p", "&password=p"))


def test_variables_that_nobody_knows_are_told_with_what_may_be_meant() -> None:
    environ = GOOD | {
        "KEELSON_POOL_SZE": "3",
        "KEELSON_OPERATOR_TOKEN_FIEL": "/x",
        "KEELSON_COMMAND_PORT_8081_TCP_ADDR": "10.0.0.1",
        "KEELSON_PORT_FILE": "/known",
        "OTHER": "x",
    }
    assert unknown_in(environ, Settings) == {
        "KEELSON_COMMAND_PORT_8081_TCP_ADDR": None,
        "KEELSON_OPERATOR_TOKEN_FIEL": "KEELSON_OPERATOR_TOKEN_FILE",
        "KEELSON_POOL_SZE": "KEELSON_POOL_SIZE",
    }


def test_a_service_without_a_database_is_told_of_none() -> None:
    class Plain(ServerSettings, frozen=True, kw_only=True):
        port: Port = 8090

    assert Plain.load({}).host == "127.0.0.1"
    assert "KEELSON_DATABASE_URL" in unknown_in({"KEELSON_DATABASE_URL": "x"}, Plain)
