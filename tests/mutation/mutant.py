"""What a mutant is: one guard taken out of the code by replacing text, and the tests that must notice."""

from pathlib import Path
from typing import NamedTuple


class MutantError(Exception):
    """The code does not have what a mutant replaces, or would be no code any more: the table must be mended."""


class Mutant(NamedTuple):
    """A guard of a failure (`number`, such as F9) is gone; `bug` says what the code does then.

    `old` stands in `file` exactly once, and `new` in its place. Each of `tests`, pytest's ids without the leading
    `tests/`, must fail; one without its parameters fails if it fails with any of them.
    """

    number: str
    bug: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """The tests as pytest takes them."""
        return [f"tests/{test}" for test in self.tests]

    def change(self, text: str) -> str:
        """Give the file's text with the bug. Raises MutantError."""
        if text.count(self.old) != 1:
            raise MutantError(f"{self.file} has {text.count(self.old)} times, not once: {self.old!r}")
        changed = text.replace(self.old, self.new)
        if changed == text:
            raise MutantError(f"nothing of {self.file} is changed")
        if self.file.endswith(".py"):
            try:
                compile(changed, self.file, "exec")
            except SyntaxError as error:
                raise MutantError(f"{self.file} is no Python any more: {error}") from None
        return changed

    def apply(self, root: Path) -> None:
        """Change the file in a copy of the tree. Raises MutantError."""
        path = root / self.file
        path.write_text(self.change(path.read_text(encoding="utf-8")), encoding="utf-8")
