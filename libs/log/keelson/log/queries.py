"""SQL lives in files beside the code that runs it; this reads them."""

from pathlib import Path


def load(module_file: str, name: str) -> str:
    """Give the text of `sql/<name>.sql` beside a module (pass its `__file__`). Read once, at import."""
    return (Path(module_file).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")
