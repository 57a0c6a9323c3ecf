"""docs/settings.md is what the code declares, and every declaration says enough to be one of its rows."""

import re
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from keelson.local import settings_document
from keelson.local.settings_document import DOCUMENT, declared
from keelson.settings import DeclaredSettings, Secret, is_secret, variable_of
from support.repository import ROOT, code_files, parse


def test_the_committed_document_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == settings_document.settings_document(), "run `make docs`"


def test_every_setting_of_every_program_has_a_row() -> None:
    rows = re.findall(r"^\| `(KEELSON_\w+)` \| ([\w, ]+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    everyone = {"all": [*declared()], "services": ["command", "query", "projector", "scheduler"]}
    said = {(name, program) for name, of in rows for each in of.split(", ") for program in everyone.get(each, [each])}
    assert said == {
        (variable_of(field.name), program)
        for program, settings in declared().items()
        for field in msgspec.structs.fields(settings)
    }


def test_every_program_that_is_declared_is_there_and_no_other_declares_settings() -> None:
    assert set(declared()) == {path.name for path in (ROOT / "services").iterdir()}
    for path in code_files():
        if path.parent.parent.parent.parent.name == "services" and path.name == "settings.py":
            [*_, last] = [node.name for node in parse(path).body if hasattr(node, "name")]
            assert last == declared()[path.parent.name].__name__


def test_whatever_sounds_like_a_secret_is_one() -> None:
    for settings in declared().values():
        for field in msgspec.structs.fields(settings):
            sounds = re.search(r"database_url|password|secret|token|key", field.name) is not None
            assert is_secret(field.type) == sounds, field.name


class Undescribed(DeclaredSettings, frozen=True, kw_only=True):
    """A setting of which nothing is said."""

    port: int


class Other(DeclaredSettings, frozen=True, kw_only=True):
    """A setting of a name that another program has for something else."""

    host: Annotated[Secret, Meta(description="something else")] = "x"


@pytest.mark.parametrize(("planted", "why"), [(Undescribed, "has no description"), (Other, "means different things")])
def test_a_setting_that_says_too_little_is_found(
    planted: type[DeclaredSettings], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_document, "declared", lambda: {**declared(), "planted": planted})
    with pytest.raises(ValueError, match=why):
        settings_document.settings_document()
