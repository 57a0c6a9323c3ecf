"""Copies of the tree, each with an interpreter that knows this copy's packages and no others of ours."""

import shutil
import sysconfig
import venv
from pathlib import Path

from support.repository import ROOT, source_files

MEMBERS = ("libs/*", "services/*", "deploy/local")


class Copy:
    """A copy of the tree in a folder of its own.

    Its interpreter is a virtual environment's, so that processes which tests start have the same packages. What is
    installed beside the checkout's own is on its path, but the `.pth` files that lead to the checkout are not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "tree"
        self._environment = folder / "environment"

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self._environment / "bin" / "python"

    def make(self, source: "Copy | None" = None) -> None:
        """Copy the checkout, or another copy with what was compiled there, and make the interpreter."""
        if source is None:
            for path in source_files():
                place = self.root / path.relative_to(ROOT)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, place)
        else:
            shutil.copytree(source.root, self.root)
        venv.EnvBuilder(symlinks=True).create(self._environment)
        (packages,) = self._environment.glob("lib/python*/site-packages")
        members = [str(path) for pattern in MEMBERS for path in sorted(self.root.glob(pattern))]
        lines = [*members, sysconfig.get_paths()["purelib"]]
        (packages / "copy.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
