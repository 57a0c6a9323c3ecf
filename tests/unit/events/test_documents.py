"""The generated documents are current, and generating them never edits what was released."""

from pathlib import Path

import pytest

from keelson.local import docs


def test_the_committed_document_is_what_the_code_says() -> None:
    assert docs.DOCUMENT.read_text(encoding="utf-8") == docs.events_document(), "run `make docs`"


def test_every_schema_is_committed_as_it_is_written(tmp_path: Path) -> None:
    docs.write_schemas(tmp_path)

    written = {each.name: each.read_text(encoding="utf-8") for each in tmp_path.iterdir()}
    assert written == {each.name: each.read_text(encoding="utf-8") for each in docs.SCHEMAS.iterdir()}


def test_a_schema_that_would_change_is_refused_and_left_alone(tmp_path: Path) -> None:
    released = tmp_path / "env.scaled.v1.json"
    released.write_text("{}\n", encoding="utf-8")

    with pytest.raises(docs.SchemaChangedError, match=r"env\.scaled\.v1\.json would change") as caught:
        docs.write_schemas(tmp_path)

    assert (caught.value.path, released.read_text(encoding="utf-8")) == (released, "{}\n")
