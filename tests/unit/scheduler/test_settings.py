"""What the scheduler can be told."""

import pytest

from keelson.scheduler.settings import SchedulerSettings
from keelson.settings import SettingsError

GIVEN = {
    "KEELSON_COMMAND_URL": "http://127.0.0.1:8081",
    "KEELSON_QUERY_URL": "http://127.0.0.1:8082",
    "KEELSON_TOKEN": "x" * 40,
}


def test_it_needs_no_database() -> None:
    settings = SchedulerSettings.load(GIVEN)

    assert (settings.port, settings.bounds.surge, settings.bounds.unavailable) == (8084, 1, 0)
    assert "x" * 40 not in repr(settings)


def test_bounds_without_room_to_move_are_refused() -> None:
    with pytest.raises(SettingsError, match="nothing could be replaced"):
        SchedulerSettings.load({**GIVEN, "KEELSON_ROLLOUT_SURGE": "0"})
