"""`docs/access.md` says what the table of rights says."""

from keelson.access.rights import COMMANDS, READS
from keelson.command.registry import HANDLERS
from keelson.local.access_document import DOCUMENT, access_document


def test_the_committed_document_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == access_document(), "run `make docs`"


def test_every_right_is_in_it() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in (*COMMANDS, *READS):
        assert f"| `{name}` |" in text


def test_every_command_has_a_right_and_every_right_a_command() -> None:
    assert HANDLERS.keys() == COMMANDS.keys()
