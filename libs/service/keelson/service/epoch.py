"""The epoch that this process last saw: told by whoever reads the log's head, shown on every answer."""


class Epoch:
    """Holds the epoch's name; None until it is known."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.headers: tuple[tuple[bytes, bytes], ...] = ()

    def learn(self, name: str) -> None:
        """Remember the epoch; cheap if it is the same."""
        if name != self.name:
            self.name = name
            self.headers = ((b"keelson-epoch", name.encode("ascii")),)
