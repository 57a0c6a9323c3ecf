"""The agent's settings."""

import pytest

from keelson.agent.settings import AgentSettings, read_labels
from keelson.settings import SettingsError

LEAST = {"KEELSON_COMMAND_URL": "http://c:8081", "KEELSON_QUERY_URL": "http://q:8082", "KEELSON_STATE": "/s"}


def test_the_least_that_must_be_said() -> None:
    settings = AgentSettings.load(LEAST)
    assert settings.driver == "process"
    assert settings.memory_bytes > 0
    assert settings.cpu_millis >= 1000


def test_labels() -> None:
    assert read_labels("") == {}
    assert read_labels("zone=a, rack=2,empty=") == {"zone": "a", "rack": "2", "empty": ""}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LABELS", "zone"),
        ("LABELS", "=a"),
        ("LABELS", "zone=a,zone=b"),
        ("COMMAND_URL", "localhost:8081"),
        ("QUERY_URL", "http://q:8082/v1"),
        ("DRIVER", "docker"),
        ("DRAIN_S", "-1"),
        ("STOP_GRACE_S", "0"),
        ("LOG_MAX_BYTES", "1"),
    ],
)
def test_what_cannot_be_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"KEELSON_{variable}"):
        AgentSettings.load({**LEAST, f"KEELSON_{variable}": value})


def test_the_token_is_not_shown() -> None:
    settings = AgentSettings.load({**LEAST, "KEELSON_ENROLLMENT_TOKEN": "kls_the-canary"})
    assert settings.enrollment_token == "kls_the-canary"
    assert "canary" not in repr(settings)
