"""Where the text of a setting comes from: a variable of the environment, or a file that another variable names.

Files are how containers are handed secrets: neither `docker inspect` nor `/proc` shows what is in them.
"""

from collections.abc import Mapping
from pathlib import Path

PREFIX = "KEELSON_"
FILE_SUFFIX = "_FILE"

# Far more than any setting has; a path that leads to a device or to a log is a mistake.
MAX_FILE_BYTES = 64 * 1024


class UnreadableError(Exception):
    """A setting's text cannot be had: `variable` is the one to mend. What the file holds is never told."""

    def __init__(self, variable: str, why: str) -> None:
        super().__init__(f"{variable}: {why}")


def variable_of(field: str) -> str:
    """Give the name of the environment variable that a field is read from."""
    return PREFIX + field.upper()


def read_text(variable: str, environ: Mapping[str, str]) -> str:
    """Give the text of a setting, empty if it is not set: `KEELSON_X` itself, or what the file `KEELSON_X_FILE` holds.

    Ends of line at the end of a file are left out, as by `$(cat FILE)`. Raises UnreadableError.
    """
    text, path = environ.get(variable, ""), environ.get(variable + FILE_SUFFIX, "")
    if not path:
        return text
    if text:
        raise UnreadableError(variable, f"is set, and {variable}{FILE_SUFFIX} is too; set one of them")
    try:
        return _read_file(Path(path))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UnreadableError(variable + FILE_SUFFIX, f"{path} cannot be read ({why})") from None
    except ValueError as error:
        raise UnreadableError(variable + FILE_SUFFIX, f"{path} {error}") from None


def _read_file(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"holds more than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:  # it would tell a byte
        raise ValueError("is not text in UTF-8") from None
    if not text:
        raise ValueError("is empty")
    return text
