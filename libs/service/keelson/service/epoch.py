"""The epoch that this process knows: told by every new connection and whoever reads the head, shown on every answer."""

from keelson.log.epochs import Epochs


class Epoch(Epochs):
    """The process's epochs, and the current one as a header; `name` is None until it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.on_change(self._show)

    def _show(self, name: str) -> None:
        self.headers = ((b"keelson-epoch", name.encode("ascii")),)
