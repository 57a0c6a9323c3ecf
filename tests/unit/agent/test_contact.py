"""What is said of services that are away: once when it begins, once when it ends."""

import pytest
from structlog.testing import capture_logs

from keelson.agent import contact as module
from keelson.agent.contact import Contact, Silence
from keelson.client import ProblemError, UnreachableError
from support.waiting import eventually

AWAY = UnreachableError("no answer")


def refusal(status: int) -> ProblemError:
    return ProblemError(status=status, code="unauthenticated", detail="the canary", body={}, retry_after_s=None)


def test_an_absence_is_said_once_and_so_is_its_end() -> None:
    contact = Contact("command")
    with capture_logs() as logs:
        contact.made()
        for _ in range(3):
            contact.lost(AWAY)
        for _ in range(3):
            contact.made()
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("control_plane_away", "warning"),
        ("control_plane_back", "info"),
    ]
    assert logs[0]["peer"] == "command"


def test_being_turned_away_is_an_error_and_what_it_quotes_is_left_out() -> None:
    contact = Contact("command")
    with capture_logs() as logs:
        contact.lost(AWAY)
        contact.lost(refusal(401))
        contact.lost(refusal(403))
        contact.lost(AWAY)
    assert [line["event"] for line in logs] == ["control_plane_away", "credential_refused", "control_plane_away"]
    assert logs[1]["log_level"] == "error"
    assert "canary" not in str(logs)


async def test_silence_is_noticed_and_broken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.001)
    silence = Silence()
    with capture_logs() as logs:
        silence.listen()
        await eventually(lambda: logs)
        monkeypatch.setattr(module, "_SILENCE_S", 60.0)
        silence.heard()
        silence.heard()
        silence.over()
    assert [line["event"] for line in logs] == ["desired_state_silent", "desired_state_heard"]
